"""Live input: lines of a file or pipe whose words are units before the line is complete."""

import codecs
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from proactivellm.pipeline import paced
from proactivellm.units.text import TextSegmenter
from proactivellm.units.unit import Unit

_CHUNK_BYTES = 1 << 16
_Piece = tuple[bytes, bool]  # part of a line, and whether the line ends with it


@dataclass
class LiveLine:
    """One source as it arrives.

    Attributes:
        where: file and line number, for messages.
        arriving: its text, piece by piece; may block.
        pieces: what has arrived.
    """

    where: str
    arriving: Iterator[str]
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What has arrived, without the line end."""
        return "".join(self.pieces).removesuffix("\r")

    def units(self, segmenter: TextSegmenter, rate_wpm: float | None) -> Iterator[list[Unit]]:
        """Its words, each as soon as the white space after it is there; together if they come so.

        Args:
            segmenter: cuts text into words.
            rate_wpm: words per minute that are not exceeded; None = as they arrive.

        Returns:
            The units that arrive together, the last one final; none for an empty line.
        """
        arrivals = self._arriving_units(segmenter)
        return arrivals if rate_wpm is None else paced(_spoken(arrivals, 60.0 / rate_wpm))

    def _arriving_units(self, segmenter: TextSegmenter) -> Iterator[list[Unit]]:
        for piece in self.arriving:
            self.pieces.append(piece)
            yield segmenter.feed(piece)
        yield segmenter.finish()


def live_lines(path: str) -> Iterator[LiveLine]:
    """Opens a text file, a named pipe, or standard input.

    Args:
        path: the file; "-" is standard input.

    Returns:
        The lines, each as soon as its first character is there; finish one before the next.

    Raises:
        ValueError: a line is not UTF-8 (when its text is asked for).
        OSError: the file cannot be opened (at once).
    """
    if path == "-":
        if sys.stdin.isatty():
            print("one source a line; Ctrl-D ends", file=sys.stderr)
        return _lines(sys.stdin.buffer, "standard input")
    return _lines(open(path, "rb"), path)


def _lines(stream: BinaryIO, name: str) -> Iterator[LiveLine]:
    pieces = _pieces(stream)
    try:
        for number in itertools.count(1):
            first = next(pieces, None)
            if first is None:
                return
            encoding = "utf-8-sig" if number == 1 else "utf-8"  # a byte order mark is no text
            arriving = _decoded(itertools.chain([first], pieces), encoding)
            yield LiveLine(f"{name}, line {number}", arriving)
    finally:
        if stream is not sys.stdin.buffer:
            stream.close()


def _pieces(stream: BinaryIO) -> Iterator[_Piece]:
    """Parts of lines as they arrive, without line ends."""
    while chunk := stream.read1(_CHUNK_BYTES):  # type: ignore[attr-defined]
        *complete, rest = chunk.split(b"\n")
        yield from ((part, True) for part in complete)
        if rest:
            yield rest, False


def _decoded(pieces: Iterable[_Piece], encoding: str) -> Iterator[str]:
    """The text of one line, up to its end or that of the input."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for piece, ends in pieces:
            yield decoder.decode(piece, final=ends)
            if ends:
                return
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"0x{error.object[error.start]:02x} is not UTF-8 ({error.reason}); "
            "convert the text first, for example: iconv -f LATIN1 -t UTF-8 IN > OUT"
        ) from None


def _spoken(arrivals: Iterable[list[Unit]], word_s: float) -> Iterator[list[Unit]]:
    """Stamps units with the times of a steady speaker."""
    words = itertools.count()
    for units in arrivals:
        stamped = []
        for unit in units:
            start_s = next(words) * word_s
            spoken_s = 0.0 if unit.is_end else word_s
            stamped.append(replace(unit, start_s=start_s, end_s=start_s + spoken_s))
        yield stamped
