"""What `stream` shows: aligned READ/WRITE columns on a terminal, plain target text in a pipe.

Of several inputs at once, whole targets after the names of the inputs.
"""

import io
import sys
from dataclasses import dataclass, field
from typing import Protocol

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from proactivellm.metrics.latency import average_lagging, read_coverage
from proactivellm.output.log import Instance
from proactivellm.pipeline import StreamEvent

_STYLES = {"source": "cyan", "target": "bold green", "path": "dim"}
_LABEL_WIDTH = 8
_MAX_DELAYS = 100  # of a sentence, shown below it as far as the line goes


class Display(Protocol):
    """Shows streams one after the other."""

    def begin(self) -> None:
        """A source begins to arrive."""

    def event(self, event: StreamEvent) -> None:
        """Something was read or written."""

    def end(self, instance: Instance) -> None:
        """The target is complete."""

    def close(self) -> None:
        """Nothing more is shown of a stream that has begun and may not be complete."""

    def summary(self, text: str) -> None:
        """All is said; one line about it."""


def choose_display(header: str) -> Display:
    """The display that fits standard output.

    Args:
        header: one line that a terminal shows first.

    Returns:
        Columns for a terminal, plain text for a pipe (or a terminal that cannot move its cursor).
    """
    console = Console(highlight=False)
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        return TerminalDisplay(console, header)
    return PipeDisplay()


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
            _write(_in_one_line(event.text))

    def end(self, instance: Instance) -> None:
        """Ends the line."""
        self.close()

    def close(self) -> None:
        """Ends the line if one was begun."""
        if self.line_is_open:
            self.line_is_open = False
            _write("\n")

    def summary(self, text: str) -> None:
        """Writes it to standard error."""
        print(text, file=sys.stderr)


class NamedTargets:
    """Whole targets of several inputs, one a line after the name of its input and a tab."""

    def __init__(self) -> None:
        _write_what_fits()

    def show(self, name: str, instance: Instance) -> None:
        """Writes a line.

        Args:
            name: of the input.
            instance: with the target.
        """
        text = instance.prediction
        if sys.stdout.isatty():
            text = _printable(text)
        _write(f"{_in_one_line(name)}\t{_in_one_line(text)}\n")

    def summary(self, text: str) -> None:
        """Writes it to standard error.

        Args:
            text: one line.
        """
        print(text, file=sys.stderr)


@dataclass
class Column:
    """A READ, and what was written before the next one.

    Attributes:
        source: the unit read; empty where the target goes on without reading.
        target: what was written.
    """

    source: str = ""
    target: str = ""

    @property
    def path(self) -> str:
        """R for the READ, W for every word written."""
        return "R" * bool(self.source) + "W" * len(self.target.split())

    @property
    def width(self) -> int:
        """Terminal cells, one of them between columns."""
        return 1 + max(cell_len(text) for text in (self.source, self.target, self.path))


@dataclass
class Block:
    """Columns that fit side by side on a terminal.

    Attributes:
        width: cells for the columns.
        columns: from left to right; only the last one still grows.
    """

    width: int
    columns: list[Column] = field(default_factory=list)

    def read(self, unit: str) -> "Block":
        """Adds a READ.

        Args:
            unit: its text.

        Returns:
            The block to go on with: this one, or a new one if this is full.
        """
        column = Column(source=unit)
        if self.columns and self._used() + column.width > self.width:
            return Block(self.width, [column])
        self.columns.append(column)
        return self

    def write(self, text: str) -> "Block":
        """Adds written text to the last READ.

        Args:
            text: new text, possibly the middle of a word.

        Returns:
            The block to go on with: this one, or a new one if this is full.
        """
        if not self.columns:
            self.columns.append(Column())
        column = self.columns[-1]
        before, column.target = column.target, (column.target + text).lstrip()
        if self._used() <= self.width:
            return self
        kept, _, word = column.target.rpartition(" ")
        if not word or (not kept and not column.source and len(self.columns) == 1):
            return self  # one word wider than the terminal: cropped
        column.target = kept if len(kept) <= len(before) else before
        return Block(self.width, [Column(target=word)])

    def render(self) -> Text:
        """Three lines: what was read, what was written, the path of READs and WRITEs."""
        lines = []
        for name, style in _STYLES.items():
            cells = [set_cell_size(getattr(c, name), c.width) for c in self.columns]
            label = (name.ljust(_LABEL_WIDTH), "dim")
            lines.append(Text.assemble(label, ("".join(cells), style)))
        return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)

    def _used(self) -> int:
        return sum(column.width for column in self.columns)


class TerminalDisplay:
    """Source words as they arrive, target words below the last word read before them."""

    def __init__(self, console: Console, header: str) -> None:
        self.console = console
        self.block = Block(0)
        self.live: Live | None = None
        console.print(header, style="dim")

    def begin(self) -> None:
        """Opens an empty block."""
        self.console.print()
        self._open(Block(max(20, self.console.width - _LABEL_WIDTH)))

    def event(self, event: StreamEvent) -> None:
        """Draws the block anew; a full one stays as it is, and another begins."""
        text = _printable(event.text)
        block = self.block.read(text) if event.kind == "READ" else self.block.write(text)
        if block is not self.block:
            self._draw()
            self.close()
            self._open(block)
        else:
            self._draw()

    def end(self, instance: Instance) -> None:
        """Closes the block and adds the lags."""
        self.close()
        self.console.print(_lags(instance), style="dim", no_wrap=True, overflow="ellipsis")

    def close(self) -> None:
        """Leaves the block as it is, and gives the cursor back."""
        if self.live:
            self.live.stop()
            self.live = None

    def summary(self, text: str) -> None:
        """Prints it below the last sentence."""
        self.console.print(f"\n{text}", style="bold", soft_wrap=True)

    def _open(self, block: Block) -> None:
        self.block = block
        self.live = Live(console=self.console, auto_refresh=False)
        self.live.start()
        self._draw()

    def _draw(self) -> None:
        if self.live and self.block.columns:
            self.live.update(self.block.render(), refresh=True)


def format_number(value: float | None) -> str:
    """Two decimals, or a dash where there is no number.

    Args:
        value: a lag or a share.
    """
    return "-" if value is None else f"{value:.2f}"


def _lags(instance: Instance) -> str:
    """Delays, AL and RCO of a sentence; without a reference, its own length is taken."""
    if not instance.source_length:
        return "(empty line)"
    units = instance.source_length
    lag = format_number(average_lagging(instance.delays, units))
    completeness = format_number(read_coverage(instance.token_delays, units))
    delays = " ".join(map(str, instance.delays[:_MAX_DELAYS])) or "-"
    return f"{' ' * _LABEL_WIDTH}AL {lag}   RCO {completeness}   delays {delays}"


def _write_what_fits() -> None:
    """What a narrow locale cannot show is no reason to stop."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _in_one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _printable(text: str) -> str:
    """Text without what would move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)
