"""Inputs read ahead by threads, so that one that waits holds up no other; bounded queues."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from proactivellm.cli.live_lines import LiveLine

_MAX_CHARACTERS = 1 << 12  # of one piece
_MAX_PIECES = 16  # that an input has read ahead


@dataclass(frozen=True)
class Piece:
    """Part of a line, as it arrived."""

    where: str  # file and line number, for messages
    text: str
    ends: bool  # whether the line is complete with it


class Input:
    """One input, read by a thread of its own, which stays ahead by a bounded number of pieces.

    Args:
        lines: used by the thread alone.
        arrived: set whenever there is something to take.
    """

    def __init__(self, name: str, lines: Iterator[LiveLine], arrived: threading.Event) -> None:
        self.name = name
        self.ended = False  # whether all was taken
        self._where = name
        self._arrived = arrived
        self._closed = False
        self._queue: queue.Queue[Piece | Exception | None] = queue.Queue(_MAX_PIECES)
        threading.Thread(target=self._read, args=(lines,), name=name, daemon=True).start()

    def take(self) -> Piece | None:
        """The next piece; None if there is none now, or never again (`ended`).

        Raises:
            ValueError: the input cannot be read any further; names it.
        """
        if self.ended:
            return None
        try:
            item = self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, Piece):
            return item
        self.ended = True
        if isinstance(item, OSError):
            raise ValueError(f"{self.name}: {item.strerror}") from item
        if isinstance(item, ValueError):
            raise ValueError(f"{self._where}: {item}") from item
        if item is not None:
            raise item
        return None

    def close(self) -> None:
        """Lets the thread end once it has read something; that is dropped."""
        self._closed = self.ended = True
        while not self._queue.empty():  # the thread may wait for room
            self._queue.get_nowait()

    def _read(self, lines: Iterator[LiveLine]) -> None:
        """What the thread does."""
        last: Exception | None = None
        try:
            for piece in self._pieces(lines):
                if self._closed:
                    return
                self._put(piece)
        except Exception as error:  # whatever it is, it is raised where the input is taken from
            last = error
        self._put(last)

    def _pieces(self, lines: Iterator[LiveLine]) -> Iterator[Piece]:
        for line in lines:
            self._where = line.where
            for text in line.arriving:
                for start in range(0, len(text), _MAX_CHARACTERS):
                    yield Piece(line.where, text[start : start + _MAX_CHARACTERS], False)
            yield Piece(line.where, "", True)

    def _put(self, item: Piece | Exception | None) -> None:
        self._queue.put(item)
        self._arrived.set()
