"""Drawings of a stream that fit side by side on a terminal, and go on below when they are full.

Of text, columns of what was read and written; of speech, words above the times they were written.
"""

from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from proactivellm.output.printable import printable
from proactivellm.output.scripts import has_unspaced
from proactivellm.output.source_units import source_units
from proactivellm.stream import StreamEvent

LABEL_WIDTH = 8
_STYLES = {"source": "cyan", "target": "bold green", "path": "dim"}


class Drawing(Protocol):
    """What a terminal shows of a stream until it is full."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""

    def take(self, event: StreamEvent) -> Self:
        """Adds an event; returns the drawing to go on with: this one, or a new one."""

    def render(self) -> Text:
        """The lines."""


@dataclass
class Column:
    """A READ, and what was written before the next one."""

    source: str = ""  # the unit read; empty where the target goes on without reading
    target: str = ""

    @property
    def path(self) -> str:
        """R for the READ, W for every word, or character of a script without spaces, written."""
        return "R" * bool(self.source) + "W" * len(source_units(self.target))

    @property
    def width(self) -> int:
        """Terminal cells, one of them between columns."""
        return 1 + max(cell_len(text) for text in (self.source, self.target, self.path))


@dataclass
class Block:
    """Columns that fit side by side on a terminal; only the last one still grows."""

    width: int  # cells
    columns: list[Column] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there are no columns."""
        return not self.columns

    def take(self, event: StreamEvent) -> "Block":
        """Adds what was read or written; returns this block, or a new one if it is full."""
        text = printable(event.text)
        return self.read(text) if event.kind == "READ" else self.write(text)

    def read(self, unit: str) -> "Block":
        """Adds a READ of a unit with this text."""
        column = Column(source=unit)
        if self.columns and self._used() + column.width > self.width:
            return Block(self.width, [column])
        self.columns.append(column)
        return self

    def write(self, text: str) -> "Block":
        """Adds written text, at most a word, possibly the middle of one, to the last READ."""
        if not self.columns:
            self.columns.append(Column())
        column = self.columns[-1]
        column.target = (column.target + text).lstrip()
        if self._used() <= self.width or column.target.endswith(" "):
            return self
        word = source_units(column.target)[-1].text
        kept = column.target.removesuffix(word).rstrip(" ")
        if not kept and not column.source and len(self.columns) == 1:
            return self  # one word wider than the terminal: cropped
        column.target = kept
        return Block(self.width, [Column(target=word)])

    def render(self) -> Text:
        """Three lines: what was read, what was written, the path of READs and WRITEs."""
        lines = []
        for name, style in _STYLES.items():
            cells = [set_cell_size(getattr(c, name), c.width) for c in self.columns]
            label = (name.ljust(LABEL_WIDTH), "dim")
            lines.append(Text.assemble(label, ("".join(cells), style)))
        return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)

    def _used(self) -> int:
        return sum(column.width for column in self.columns)


@dataclass
class Word:
    """A word of a caption, or what there is of it."""

    text: str
    heard_s: float  # of the recording, when the last character was written

    @property
    def time(self) -> str:
        """The seconds, as shown."""
        return f"{self.heard_s:.2f}"


@dataclass
class Caption:
    """Words that fit on a line, each group that was written together above its time."""

    width: int  # cells
    words: list[Word] = field(default_factory=list)  # only the last one still grows
    ends_word: bool = True  # whether what comes next begins another word

    @property
    def is_empty(self) -> bool:
        """Whether there are no words."""
        return not self.words

    def take(self, event: StreamEvent) -> "Caption":
        """Adds at most one word, with white space before it; returns this or a new caption."""
        self.ends_word = self.ends_word or event.text[:1].isspace()
        word = printable(event.text).strip()
        if not word:
            return self
        if self.ends_word or not self.words:
            self.words.append(Word(word, event.media_s or 0.0))
        else:
            longer = Word(self.words[-1].text + word, event.media_s or 0.0)
            if has_unspaced(word) and cell_len(longer.text) >= self.width:
                return Caption(self.width, [replace(longer, text=word)], ends_word=False)
            self.words[-1] = longer
        self.ends_word = False
        if len(self.words) == 1 or sum(self._cells()[0]) <= self.width:
            return self
        return Caption(self.width, [self.words.pop()], ends_word=False)

    def render(self) -> Text:
        """Two lines: what was written, and when."""
        widths, times = self._cells()
        words = "".join(set_cell_size(w.text, n) for w, n in zip(self.words, widths, strict=True))
        below = "".join(set_cell_size(time, n) for time, n in zip(times, widths, strict=True))
        lines = [Text(words, _STYLES["target"]), Text(below, _STYLES["path"])]
        return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)

    def _cells(self) -> tuple[list[int], list[str]]:
        """Cells of each word, one of them between words, and what stands below it."""
        before = [None, *(word.time for word in self.words)]
        times = [
            "" if word.time == last else word.time
            for word, last in zip(self.words, before, strict=False)
        ]
        pairs = zip(self.words, times, strict=True)
        return [1 + max(cell_len(word.text), len(time)) for word, time in pairs], times
