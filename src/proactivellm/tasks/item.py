"""What every task yields: a source to stream, the target to learn, the answers that count."""

from typing import NamedTuple


class Item(NamedTuple):
    """One instance of a task.

    Attributes:
        source: text of the stream, on one line.
        target: what is to be written, on one line.
        answers: all that is accepted instead; empty = only the target.
    """

    source: str
    target: str
    answers: tuple[str, ...] = ()
