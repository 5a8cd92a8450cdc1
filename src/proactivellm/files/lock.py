"""One process at a time works in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from proactivellm.files.replace import remove_unfinished

LOCK_FILE = ".lock"  # stays behind, empty; the system lets go of it with the process that holds it


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keeps other processes out of a folder that results are written to; makes it if it is missing.

    Raises:
        ValueError: another process is at work there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # It waits for nothing: who works there may take hours.
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{folder} is in use: another process writes to it; wait until that is done, or "
            "choose another --out"
        ) from None
    try:
        remove_unfinished(folder)  # nobody else writes here now: what is left is of a killed run
        yield
    finally:
        lock.release()
