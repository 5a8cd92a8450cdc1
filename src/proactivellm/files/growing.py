"""Files that grow line by line, so that a kill loses at most the last one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO

from proactivellm.files.replace import naming


@contextmanager
def open_lines(path: str | Path | None, mode: Literal["w", "a"] = "w") -> Iterator[TextIO | None]:
    """Opens a file to write lines to, anew or to go on; no path gives None.

    Whoever writes flushes after each line.

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
        with naming(path):  # what a full disk did not take shows on closing
            file.close()
