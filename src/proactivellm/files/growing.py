"""Files that grow line by line, so that a kill loses at most the last one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO

from proactivellm.files.replace import naming


@contextmanager
def open_lines(path: str | Path | None, mode: Literal["w", "a"] = "w") -> Iterator[TextIO | None]:
    """Opens a file that whoever writes to it flushes after each line.

    Args:
        path: the file; None = there is to be none.
        mode: whether it begins anew or goes on.

    Yields:
        The file, or None.

    Raises:
        OSError: it cannot be opened, or not be written to the end; names it.
    """
    if path is None:
        yield None
        return
    file = open(path, mode, encoding="utf-8")
    try:
        yield file
    finally:
        with naming(path):
            file.close()
