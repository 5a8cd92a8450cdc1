"""What `stream` shows: a drawing that grows on a terminal, plain target text in a pipe.

Of several inputs at once, whole targets after the names of the inputs.
"""

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from proactivellm.cli.columns import LABEL_WIDTH, Block, Caption, Drawing
from proactivellm.metrics.latency import (
    average_lagging,
    length_adaptive_average_lagging,
    read_coverage,
)
from proactivellm.output.log import Instance
from proactivellm.output.printable import in_one_line, printable, write_out
from proactivellm.output.source_units import SourceUnit, arrived_units, words_with_space
from proactivellm.stream import StreamEvent

_PLAIN: dict[str, Any] = {"markup": False, "emoji": False}  # brackets in names are brackets
_MAX_DELAYS = 100  # of a sentence, shown below it as far as the line goes


class Display(Protocol):
    """Shows streams one after the other."""

    def begin(self) -> None:
        """A source begins to arrive."""

    def event(self, event: StreamEvent) -> None:
        """Something was read or written."""

    def turn(self) -> None:
        """What was said is complete: what comes next begins another turn, with another word."""

    def end(self, instance: Instance) -> None:
        """The target is complete."""

    def close(self) -> None:
        """Nothing more is shown of a stream that has begun and may not be complete."""

    def summary(self, text: str) -> None:
        """All is said; one line about it."""


def choose_display(header: str, speech: bool = False, times: bool = False) -> Display:
    """A drawing for a terminal, plain text for a pipe or a terminal that cannot move its cursor.

    Args:
        header: one line that a terminal shows first.
        speech: whether recordings are streamed.
        times: whether a pipe, too, is told when words were written.
    """
    console = Console(highlight=False)
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        return TerminalDisplay(console, header, Caption if speech else Block)
    return TimesDisplay() if times else PipeDisplay()


class PipeDisplay:
    """Target text on standard output, flushed as it emerges; the summary on standard error."""

    def __init__(self) -> None:
        _write_what_fits()
        self.line_is_open = False

    def begin(self) -> None:
        """Shows nothing yet."""
        self.line_is_open = True

    def event(self, event: StreamEvent) -> None:
        """Writes the new text; a line break of the model's own would look like the next target."""
        if event.kind == "WRITE":
            write_out(in_one_line(event.text))

    def turn(self) -> None:
        """Shows nothing: the text goes on after a space."""

    def end(self, instance: Instance) -> None:
        """Ends the line."""
        self.close()

    def close(self) -> None:
        """Ends the line if one was begun."""
        if self.line_is_open:
            self.line_is_open = False
            write_out("\n")

    def summary(self, text: str) -> None:
        """Writes it to standard error."""
        print(text, file=sys.stderr)


class TimesDisplay(PipeDisplay):
    """A line for each word once it is whole: seconds, a tab, the word; at the end a blank one.

    The seconds are what had arrived of the recording when the last character was written. A
    character of a script without spaces is a word.
    """

    def __init__(self) -> None:
        super().__init__()
        self._begun, self._heard_s = SourceUnit(""), 0.0

    def event(self, event: StreamEvent) -> None:
        """Writes the words that end with the new text."""
        begun, now_s = self._begun.text, event.media_s or 0.0
        words, self._begun = arrived_units(begun + event.text, self._begun.glued)
        for place, word in enumerate(words):
            was_there = place == 0 and word.text == begun
            self._write(self._heard_s if was_there else now_s, word.text)
        if event.text.strip():
            self._heard_s = now_s

    def turn(self) -> None:
        """Writes the last word."""
        if self._begun.text:
            self._write(self._heard_s, self._begun.text)
        self._begun = SourceUnit("")

    def close(self) -> None:
        """Writes the last word, and ends the source if one was begun."""
        self.turn()
        super().close()

    def _write(self, heard_s: float, word: str) -> None:
        write_out(f"{heard_s:.2f}\t{word}\n")


class NamedTargets:
    """Whole targets of several inputs, one a line after the name of its input and a tab."""

    def __init__(self) -> None:
        _write_what_fits()

    def show(self, name: str, instance: Instance) -> None:
        """Writes the target of an input."""
        text = instance.prediction
        if sys.stdout.isatty():
            text = printable(text)
        write_out(f"{in_one_line(name)}\t{in_one_line(text)}\n")

    def summary(self, text: str) -> None:
        """Writes it to standard error."""
        print(text, file=sys.stderr)


class TerminalDisplay:
    """A drawing that grows as words are read and written; a full one stays, and another begins.

    Args:
        header: one line that is shown first.
        new_drawing: makes an empty one of a width in cells.
    """

    def __init__(
        self, console: Console, header: str, new_drawing: Callable[[int], Drawing] = Block
    ) -> None:
        self.console = console
        self._new_drawing = new_drawing
        self.drawing: Drawing = new_drawing(0)
        self.live: Live | None = None
        console.print(header, style="dim", **_PLAIN)

    def begin(self) -> None:
        """Begins an empty drawing."""
        self.console.print()
        self.turn()

    def event(self, event: StreamEvent) -> None:
        """Draws anew; a full drawing stays as it is, and another begins."""
        texts = [event.text]
        if event.kind == "WRITE":  # word by word: any of them may fill it
            texts = words_with_space(event.text)
        for text in texts:
            drawing = self.drawing.take(replace(event, text=text))
            if drawing is not self.drawing:
                self._draw()
                self.close()
                self.drawing = drawing
            self._draw()

    def turn(self) -> None:
        """Leaves the drawing as it is, and begins an empty one."""
        self.close()
        self.drawing = self._new_drawing(max(20, self.console.width - LABEL_WIDTH))

    def end(self, instance: Instance) -> None:
        """Closes the drawing and adds the lags."""
        self.close()
        look: dict[str, Any] = {"style": "dim", "no_wrap": True, "overflow": "ellipsis"}
        self.console.print(_lags(instance), **look, **_PLAIN)

    def close(self) -> None:
        """Leaves the drawing as it is, and gives the cursor back."""
        if self.live:
            self.live.stop()
            self.live = None

    def summary(self, text: str) -> None:
        """Prints it below the last sentence."""
        self.console.print(f"\n{text}", style="bold", soft_wrap=True, **_PLAIN)

    def _draw(self) -> None:
        if self.drawing.is_empty:
            return
        if self.live is None:
            self.live = Live(console=self.console, auto_refresh=False)
            self.live.start()
        self.live.update(self.drawing.render(), refresh=True)


def format_number(value: float | None) -> str:
    """Two decimals, or a dash where there is no number."""
    return "-" if value is None else f"{value:.2f}"


def _lags(instance: Instance) -> str:
    """The lags of a source; without a reference, its own length is taken."""
    if not instance.source_length:
        return "(empty line)" if instance.source_type == "text" else "(no audio)"
    length = instance.source_length
    if instance.source_type == "speech":
        lag = length_adaptive_average_lagging(instance.delays, length)
        shown = "-" if lag is None else f"{lag:.0f} ms"
        return f"{length / 1000:.2f} s   LAAL {shown}   {printable(instance.source)}"
    average = format_number(average_lagging(instance.delays, length))
    completeness = format_number(read_coverage(instance.token_delays, length))
    delays = " ".join(map(str, instance.delays[:_MAX_DELAYS])) or "-"
    return f"{' ' * LABEL_WIDTH}AL {average}   RCO {completeness}   delays {delays}"


def _write_what_fits() -> None:
    """What a narrow locale cannot show is no reason to stop."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
