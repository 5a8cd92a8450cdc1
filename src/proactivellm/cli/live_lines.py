"""Live input: lines of a file or pipe whose words are units before the line is complete.

Only what makes units of them needs torch: a client sends lines as text.
"""

import codecs
import itertools
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, ClassVar

from proactivellm.cli.messages import warn
from proactivellm.cli.stopping import Stops
from proactivellm.files.contents import HEAD_BYTES, why_no_text
from proactivellm.files.lines import NUL_REMEDY, standard_input
from proactivellm.output.log import Task
from proactivellm.output.source_units import source_units

if TYPE_CHECKING:
    from proactivellm.core.unit import Unit
    from proactivellm.modality.text import TextSegmenter

_CHUNK_BYTES = 1 << 16
_Piece = tuple[bytes, bool]  # part of a line, and whether the line ends with it


@dataclass
class LiveLine:
    """One source as it arrives."""

    task: ClassVar[Task] = "translation"
    ends_with_ctrl_c: ClassVar[bool] = False
    where: str  # file and line number, for messages
    arriving: Iterator[str]  # its text, piece by piece; may block
    is_live: bool = False  # whether it is only there as it is written, as in a pipe
    pieces: list[str] = field(default_factory=list)  # what has arrived

    @property
    def text(self) -> str:
        """What has arrived, without the line end."""
        return "".join(self.pieces).removesuffix("\r")

    def units(self, segmenter: "TextSegmenter", rate_wpm: float | None) -> Iterator[list["Unit"]]:
        """Its units, each as soon as it is complete; together if they come so.

        Args:
            rate_wpm: units per minute that are not exceeded; None = as they arrive.

        Returns:
            The units that arrive together, the last one final; none for an empty line.
        """
        from proactivellm.stream import paced

        arrivals = self._arriving_units(segmenter)
        if rate_wpm is None:
            return arrivals
        speaker = Speaker(60.0 / rate_wpm)
        return paced(map(speaker.stamp, arrivals))

    def _arriving_units(self, segmenter: "TextSegmenter") -> Iterator[list["Unit"]]:
        for piece in self.arriving:
            self.pieces.append(piece)
            yield segmenter.feed(piece)
        yield segmenter.finish()


@dataclass
class Speaker:
    """A steady speaker: says when each word of a line is complete."""

    word_s: float  # seconds per word; 0 = all are there at once
    num_words: int = 0  # said so far

    def stamp(self, units: Iterable["Unit"]) -> list["Unit"]:
        """The next units, or sentences of them, with `start_s` and `end_s` in seconds after the
        line began.
        """
        stamped = []
        for unit in units:
            start_s = self.num_words * self.word_s
            num_words = 0 if unit.is_end else max(1, len(source_units(unit.text, unit.glued)))
            spoken_s = num_words * self.word_s
            stamped.append(replace(unit, start_s=start_s, end_s=start_s + spoken_s))
            self.num_words += num_words
        return stamped


def live_lines(path: str, stops: Stops | None = None) -> Iterator[LiveLine]:
    """Opens a text file, a named pipe, or standard input.

    Args:
        path: "-" is standard input.
        stops: ends the input, also within a line; None = nothing does.

    Returns:
        The lines, each as soon as its first character is there; finish one before the next.

    Raises:
        ValueError: a line is not UTF-8 (when its text is asked for).
        OSError: the file cannot be opened (at once).
    """
    if path == "-":
        stream = standard_input()
        hint = "one source a line; Ctrl-D ends" if sys.stdin.isatty() else None
        # Not buffered: a thread that waits in a buffer holds its lock, and Python could not exit.
        raw = getattr(stream, "raw", stream)
        return _lines(raw, "standard input", stops, closes=False, hint=hint)
    return _lines(open(path, "rb", buffering=0), path, stops)


def live_lines_of_several(paths: Sequence[str]) -> list[Iterator[LiveLine]]:
    """Opens inputs that are to be read side by side; gives the lines of each.

    A named pipe is opened only when its first line is asked for: that waits for whoever writes.

    Raises:
        ValueError: the same input is named twice.
        OSError: a file cannot be opened.
    """
    named: dict[str, str] = {}
    for path in paths:
        place = path if path == "-" else os.path.realpath(path)
        if place in named:
            same = f"--input {path} is the same as --input {named[place]}"
            raise ValueError(f"{same}: name each input once")
        named[place] = path
    return [_lazily(path) if _is_pipe(path) else live_lines(path) for path in paths]


def _is_pipe(path: str) -> bool:
    return path != "-" and stat.S_ISFIFO(os.stat(path).st_mode)


def _lazily(path: str) -> Iterator[LiveLine]:
    yield from live_lines(path)


def _is_live(stream: IO[bytes]) -> bool:
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:  # it is no file of the system
        return True


def _lines(
    stream: IO[bytes],
    name: str,
    stops: Stops | None,
    closes: bool = True,
    hint: str | None = None,
) -> Iterator[LiveLine]:
    if hint:  # told when it is read from, and not while the model is loaded
        warn(hint)
    pieces, is_live = _pieces(stream, name), _is_live(stream)
    if stops is not None:
        pieces = stops.until_stopped(pieces)
    try:
        for number in itertools.count(1):
            first = next(pieces, None)
            if first is None:
                return
            encoding = "utf-8-sig" if number == 1 else "utf-8"  # a byte order mark is no text
            arriving = _decoded(itertools.chain([first], pieces), encoding)
            yield LiveLine(f"{name}, line {number}", arriving, is_live)
            for _ in arriving:  # what follows a target that ended early is no line of its own
                pass
    finally:
        if closes:
            stream.close()


def _pieces(stream: IO[bytes], name: str) -> Iterator[_Piece]:
    """Parts of lines as they arrive, without line ends; what begins as no text does is refused."""
    head = b""
    while chunk := stream.read(_CHUNK_BYTES):
        if len(head) < HEAD_BYTES:
            head += chunk[:HEAD_BYTES]
            if reason := why_no_text(head):
                raise ValueError(f"{name}: {reason}")
        *complete, rest = chunk.split(b"\n")
        yield from ((part, True) for part in complete)
        if rest:
            yield rest, False


def _decoded(pieces: Iterable[_Piece], encoding: str) -> Iterator[str]:
    """The text of one line, up to its end or that of the input."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for piece, ends in pieces:
            text = decoder.decode(piece, final=ends)
            if "\0" in text:
                raise ValueError(NUL_REMEDY)
            yield text
            if ends:
                return
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"0x{error.object[error.start]:02x} is not UTF-8 ({error.reason}); "
            "convert the text first, for example: iconv -f LATIN1 -t UTF-8 IN > OUT"
        ) from None
