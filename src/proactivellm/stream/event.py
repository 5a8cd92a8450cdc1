"""What happens in a stream, as those who drive it are told."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from proactivellm.core.unit import Unit
from proactivellm.policy.reason import Reason
from proactivellm.session.events import Ending

Kind = Literal["READ", "THINK", "WRITE", "END", "BEGIN", "PAUSE"]


@dataclass(frozen=True)
class StreamEvent:
    """What happened in a stream."""

    # READ (a unit was read; of media, where blocks are pushed), THINK (text of a thought became
    # certain), WRITE (text of the target did), or END (a turn is over; a text is one turn). Where
    # it tells turns: BEGIN (the first unit of a turn was heard) and PAUSE (its last
    # one), which may come while the turn before is still being written.
    kind: Kind
    text: str  # the unit's text, or the new text of thought or target
    units_read: int  # up to it; what is written had seen them
    elapsed_s: float  # seconds since the stream began
    # Seconds of the media that had arrived, None for text; of a BEGIN: where its turn begins.
    media_s: float | None = None
    reason: Reason | None = None  # None of text that came out as the target was cut
    # What the policy compared with its threshold, where that decided and the stream is watched.
    evidence: float | None = None
    tokens: int = 0  # of the target, written so far in this turn
    thought_tokens: int = 0  # of its thoughts, so far
    ending: Ending | None = None  # of an END: how the target ended
    # Of a WRITE or THINK: since what had been read then had arrived.
    lag_s: float | None = None
    thought: int | None = None  # of a THINK: its number, from 0
    closes: bool = False  # of a THINK: whether the thought ends with it


def boundaries(units: Iterable[Unit], within: bool) -> Iterator[tuple[Kind, float]]:
    """Where turns begin and end in units that arrive, in seconds; `within` a turn at first."""
    for unit in units:
        if not within:
            yield "BEGIN", unit.start_s
        if unit.final:
            yield "PAUSE", unit.end_s
        within = not unit.final
