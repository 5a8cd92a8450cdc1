"""What happens in a stream, as those who drive it are told."""

from dataclasses import dataclass
from typing import Literal

from proactivellm.policy.reason import Reason


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
