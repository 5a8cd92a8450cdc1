"""What an engine reports: units READ, tokens WRITTEN or thought, ENDs, probes that are watched."""

from dataclasses import dataclass
from enum import StrEnum

from proactivellm.core.unit import Unit
from proactivellm.policy.evidence import Seen
from proactivellm.policy.reason import Reason


class Ending(StrEnum):
    """How a stream ended."""

    END_TOKEN = "end token"
    LENGTH_LIMIT = "length limit"
    EMPTY_SOURCE = "empty source"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Read:
    """A source unit was read; a bare end marker is none."""

    lane: int
    unit: Unit
    units_read: int  # it included
    reason: Reason  # why nothing was written before it


@dataclass(frozen=True, kw_only=True)
class Write:
    """A token was written, or text that was held back came out as its stream ended without one."""

    lane: int
    token_id: int | None  # an end-of-stream token closes the target; None: text held back
    text: str  # what became certain with it, possibly empty
    units_read: int  # g, source units read when it was predicted
    source_finished: bool = False  # whether the whole source had been read
    reason: Reason | None = None  # why it was written; None without a token


@dataclass(frozen=True, kw_only=True)
class Thought:
    """A token of a thought was written: what the model thinks, apart from its answer."""

    lane: int
    token_id: int  # text, or a control token: what opens a stage or closes it
    text: str  # what became certain with it, possibly empty
    units_read: int  # g, source units that it saw when it was predicted
    source_finished: bool  # whether it saw the end of the source
    number: int  # of the thought, from 0: one for each unit, then the deep stages
    stage: int  # 0 = about a unit; deep stages from 1
    closes: bool  # whether it closes the thought
    answers: bool  # whether it closes all thoughts, so that the answer follows


@dataclass(frozen=True, kw_only=True)
class End:
    """A stream ended; nothing follows."""

    lane: int  # until it is released
    how: Ending
    error: str | None = None  # why it could not go on


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a probe of a watched stream saw and came to; the Writes that follow of it come after."""

    lane: int
    token_id: int  # the candidate, what a WRITE would write
    reason: Reason | None  # None for a token of a draft, whose Writes tell what became of it
    seen: Seen  # the evidence of the policy and of the watcher, of this lane alone


Event = Read | Write | Thought | End | Probed
