"""Thoughts of a stream as lines on standard error, apart from the answer."""

import sys
from typing import TYPE_CHECKING

from proactivellm.output.printable import printable

if TYPE_CHECKING:
    from proactivellm.stream import StreamEvent


class ThoughtLines:
    """Writes each thought when it is complete, with what it had seen and the time."""

    def __init__(self) -> None:
        self._text = ""

    def take(self, event: "StreamEvent") -> None:
        """Take the new text of a thought; write it if it is complete."""
        self.add(event.text)
        if event.closes:
            self.end(event.thought or 0, event.units_read, event.elapsed_s)

    def add(self, text: str) -> None:
        """Take new text of a thought."""
        self._text += text

    def end(self, number: int, units_read: int, elapsed_s: float) -> None:
        """Write the thought, which is complete; its number is from 0 on."""
        text, self._text = printable(" ".join(self._text.split())), ""
        seen = f"{units_read} read, {elapsed_s:.2f} s"
        print(f"[thought {number + 1}: {seen}] {text or '(skip)'}", file=sys.stderr)
