"""What every task yields: a source to stream, the target to learn, the answers that count."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from proactivellm.tasks.reasoning.problem import Problem


class Item(NamedTuple):
    """One item of a task."""

    source: str  # of the stream, on one line; of media, what is read before them
    target: str  # what is to be written, on one line
    answers: tuple[str, ...] = ()  # all that is accepted instead; empty = only the target
    media: tuple[str, ...] = ()  # files that are the source, joined; empty = the source is text
    duration_s: float | None = None  # of the media, where it is known
    place: str = ""  # file and line it was read from, for messages; empty = it was generated
    # Of media: seconds of them that tell each target word; empty = not known.
    evidence_s: tuple[float, ...] = ()
    group: str = ""  # of which scores are told apart, such as a kind of question
    delays: tuple[int, ...] = ()  # units read before each target word, as a policy had them
    problem: "Problem | None" = None  # of which source and target are the texts


def place_of(items: Sequence[Item], otherwise: str) -> str:
    """Where the items of a sample were read; `otherwise` if they come from no file."""
    return " joined with ".join(item.place for item in items if item.place) or otherwise
