"""What is told beyond OpenAI's protocol: where a delta stands, each decision, and silence."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from proactivellm.stream import StreamEvent

Send = Callable[[dict[str, Any]], Awaitable[None]]
DECIDED = ("READ", "WRITE")  # kinds of events that tell of a decision
_SILENCE_S = 1.0  # between two events that tell of it


def position(event: StreamEvent) -> dict[str, Any]:
    """The object `proactivellm` of a delta: what had been read, when, and why it was written."""
    return {
        "source_units": event.units_read,
        "source_s": event.media_s,
        "elapsed_ms": round(1000 * event.elapsed_s, 1),
        "reason": None if event.reason is None else event.reason.text,
        "evidence": None if event.evidence is None else round(event.evidence, 6),
        "lag_ms": None if event.lag_s is None else round(1000 * event.lag_s, 1),
    }


def decision(event: StreamEvent) -> dict[str, Any]:
    """The event that tells of one READ or WRITE."""
    where = position(event)
    return {
        "type": "proactivellm.decision",
        "action": event.kind,
        "reason": where["reason"],
        "evidence": where["evidence"],
        "source_units": event.units_read,
        "target_tokens": event.tokens,
        "elapsed_ms": where["elapsed_ms"],
    }


class Silence:
    """Tells, once a second, that source arrives and nothing is written."""

    def __init__(self) -> None:
        self._wrote_s = self._told_s = time.monotonic()

    def of(self, event: StreamEvent) -> dict[str, Any] | None:
        """The event to send after this one, if it is time."""
        now_s = time.monotonic()
        if event.kind != "READ":
            self._wrote_s = self._told_s = now_s
        elif now_s - self._told_s >= _SILENCE_S:
            self._told_s = now_s
            since_s = round(now_s - self._wrote_s, 3)
            return {
                "type": "proactivellm.silence",
                "source_units": event.units_read,
                "since_s": since_s,
            }
        return None
