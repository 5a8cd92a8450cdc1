"""What happens in a stream, as those who drive it are told."""

from dataclasses import dataclass
from typing import Literal

from proactivellm.policy.reason import Reason
from proactivellm.session.events import Ending


@dataclass(frozen=True)
class StreamEvent:
    """What happened in a stream."""

    # READ (a unit was read), WRITE (text became certain), or END (a turn is over; a text is one
    # turn).
    kind: Literal["READ", "WRITE", "END"]
    text: str  # the unit's text or the new target text
    units_read: int
    elapsed_s: float  # seconds since the stream began
    media_s: float | None = None  # seconds of the media that had arrived; None for text
    reason: Reason | None = None  # None of text that came out as the target was cut
    # What the policy compared with its threshold, where that decided and the stream is watched.
    evidence: float | None = None
    tokens: int = 0  # written so far in this turn
    ending: Ending | None = None  # of an END: how the target ended
    lag_s: float | None = None  # of a WRITE: since what had been read then had arrived
