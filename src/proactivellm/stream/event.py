"""What happens in a stream, as those who drive it are told."""

from dataclasses import dataclass
from typing import Literal

from proactivellm.policy.reason import Reason
from proactivellm.session.events import Ending


@dataclass(frozen=True)
class StreamEvent:
    """What happened in a stream."""

    # READ (a unit was read), THINK (text of a thought became certain), WRITE (text of the target
    # did), or END (a turn is over; a text is one turn).
    kind: Literal["READ", "THINK", "WRITE", "END"]
    text: str  # the unit's text, or the new text of thought or target
    units_read: int  # up to it; what is written had seen them
    elapsed_s: float  # seconds since the stream began
    media_s: float | None = None  # seconds of the media that had arrived; None for text
    reason: Reason | None = None  # None of text that came out as the target was cut
    # What the policy compared with its threshold, where that decided and the stream is watched.
    evidence: float | None = None
    tokens: int = 0  # written so far in this turn
    ending: Ending | None = None  # of an END: how the target ended
    # Of a WRITE or THINK: since what had been read then had arrived.
    lag_s: float | None = None
    thought: int | None = None  # of a THINK: its number, from 0
    closes: bool = False  # of a THINK: whether the thought ends with it
