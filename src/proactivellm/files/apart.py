"""Refuses outputs that are inputs as well: a slip must not cost the input."""

import os
import stat
from collections.abc import Iterable, Sequence

Path = str | os.PathLike[str]
Output = tuple[str, Path | None]  # flag, file; None = there is none
Input = tuple[str, Path | int | None]  # flag; file, or the descriptor of an open one


def check_apart(outputs: Sequence[Output], inputs: Iterable[Input]) -> None:
    """Refuses to write to an input, or twice to the same file, by whatever name.

    Raises:
        ValueError: two of them are the same file; names their flags.
    """
    read = [(flag, place) for flag, place in inputs if place is not None]
    written: list[tuple[str, Path]] = []
    for flag, path in outputs:
        if path is None:
            continue
        for other, file in read:
            if _is_same(path, file):
                raise ValueError(
                    f"{flag} {path} would overwrite {other}, which is read: give another file"
                )
        for other, file in written:
            if _is_same(path, file):
                raise ValueError(f"{flag} {path} and {other} are one file: give two")
        written.append((flag, path))


def _is_same(path: Path, other: Path | int) -> bool:
    """Whether two names are of one file; what is no file, such as /dev/null, loses nothing."""
    try:
        first, second = os.stat(path), os.stat(other)
    except OSError:  # one of them is not there, or is not open
        return not isinstance(other, int) and os.path.realpath(path) == os.path.realpath(other)
    return os.path.samestat(first, second) and stat.S_ISREG(first.st_mode)
