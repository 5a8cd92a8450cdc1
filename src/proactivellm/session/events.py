"""What an engine reports: units READ, tokens WRITTEN, streams that END, probes that are watched."""

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
    """A source unit was read; a bare end marker is none.

    Attributes:
        lane: the lane that read it.
        unit: the unit.
        units_read: source units read, it included.
        reason: why nothing was written before it.
    """

    lane: int
    unit: Unit
    units_read: int
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Write:
    """A token was written, or text that was held back came out as its stream ended without one.

    Attributes:
        lane: the lane that wrote it.
        token_id: the token; an end-of-stream token closes the target. None: text held back.
        text: text that became certain with it, possibly empty.
        units_read: g, source units read when it was predicted.
        source_finished: whether the whole source had been read.
        reason: why it was written; None without a token.
    """

    lane: int
    token_id: int | None
    text: str
    units_read: int
    source_finished: bool = False
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class End:
    """A stream ended; nothing follows.

    Attributes:
        lane: its lane, until it is released.
        how: how it ended.
        error: why it could not go on, if it could not.
    """

    lane: int
    how: Ending
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a probe of a watched stream saw and came to; comes before the Writes that follow of it.

    Attributes:
        lane: the lane that probed.
        token_id: the candidate, what a WRITE would write.
        reason: the decision; None for a token of a draft, whose Writes tell what became of it.
        seen: the evidence of the policy and of the watcher, of this lane alone.
    """

    lane: int
    token_id: int
    reason: Reason | None
    seen: Seen


Event = Read | Write | End | Probed
