"""What every task yields: a source to stream, the target to learn, the answers that count."""

from collections.abc import Sequence
from typing import NamedTuple


class Item(NamedTuple):
    """One item of a task.

    Attributes:
        source: text of the stream, on one line; of media, what is read before them.
        target: what is to be written, on one line.
        answers: all that is accepted instead; empty = only the target.
        media: files that are the source, joined; empty = the source is text.
        duration_s: of the media, where it is known.
        place: file and line it was read from, for messages; empty = it was generated.
    """

    source: str
    target: str
    answers: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    duration_s: float | None = None
    place: str = ""


def place_of(items: Sequence[Item], otherwise: str) -> str:
    """Where the items of a sample were read; `otherwise` if they come from no file."""
    return " joined with ".join(item.place for item in items if item.place) or otherwise
