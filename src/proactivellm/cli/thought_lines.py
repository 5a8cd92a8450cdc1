"""Thoughts of a stream as lines on standard error, apart from the answer."""

import sys

from proactivellm.output.printable import printable
from proactivellm.stream import StreamEvent


class ThoughtLines:
    """Writes each thought when it is complete, with what it had seen and the time."""

    def __init__(self) -> None:
        self._text = ""

    def take(self, event: StreamEvent) -> None:
        """Take the new text of a thought; write it if it is complete."""
        self._text += event.text
        if not event.closes:
            return
        text, self._text = printable(" ".join(self._text.split())), ""
        seen = f"{event.units_read} read, {event.elapsed_s:.2f} s"
        print(f"[thought {(event.thought or 0) + 1}: {seen}] {text or '(skip)'}", file=sys.stderr)
