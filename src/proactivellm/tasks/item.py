"""What every task yields: a source to stream, the target to learn, the answers that count."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from proactivellm.output.source_units import joined_texts

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
    # Of media: what is thought about them, each at the second that tells it; None = not known.
    thoughts: tuple[tuple[float, str], ...] | None = None
    group: str = ""  # of which scores are told apart, such as a kind of question
    # Units read before each unit of the target (`output.source_units`), as a policy had them.
    delays: tuple[int, ...] = ()
    problem: "Problem | None" = None  # of which source and target are the texts
    spelled: bool = False  # its source has white space between all characters


def source_of(items: Sequence[Item]) -> str:
    """The sources of items, one after the other, as they would arrive."""
    spelled = any(item.spelled for item in items)
    return (" ".join if spelled else joined_texts)([item.source for item in items])


def target_of(items: Sequence[Item]) -> str:
    """The targets of items, one after the other."""
    return joined_texts(item.target for item in items)


def place_of(items: Sequence[Item], otherwise: str) -> str:
    """Where the items of a sample were read; `otherwise` if they come from no file."""
    return " joined with ".join(item.place for item in items if item.place) or otherwise
