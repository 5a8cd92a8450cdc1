"""Files are replaced whole or not at all: a full disk or a kill leaves what was there.

In: where the file is to be, and its text or what writes it. Out: the file.
"""

import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_MARK = ".tmp-"  # of what is not whole yet


def write_text(path: str | Path, text: str) -> None:
    """Replaces a text file.

    Args:
        path: the file.
        text: all of it.

    Raises:
        OSError: it cannot be written; names the file, which is as it was.
    """
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Replaces a JSON file.

    Args:
        path: the file.
        value: plain values.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Replaces a file by one that is written in its folder, once that is whole.

    Args:
        path: the file. Of a link, what it leads to is replaced. What is no file, such as a pipe
            or /dev/stdout, cannot be replaced, and is written to as it is.

    Yields:
        Where to write, with the ending of `path`.

    Raises:
        OSError: it cannot be written; names the file, which is as it was.
    """
    with naming(path):
        mode = os.stat(path).st_mode if os.path.exists(path) else None
        if mode is not None and not stat.S_ISREG(mode):
            yield Path(path)
            return
        place = Path(os.path.realpath(path))
        new = place.with_name(f"{_MARK}{secrets.token_hex(4)}{place.suffix}")
        try:
            yield new
            if mode is not None:
                os.chmod(new, stat.S_IMODE(mode))
            _settle(new)
            os.replace(new, place)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


@contextmanager
def replacing_in(folder: str | Path) -> Iterator[Path]:
    """Replaces files of a folder by those that are written into another, once these are whole.

    Args:
        folder: it is made if it is not there; what is not written anew stays in it.

    Yields:
        An empty folder to write to; folders may be made in it.

    Raises:
        OSError: something cannot be written; names the folder, whose files are as they were.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{_MARK}{secrets.token_hex(4)}"
    try:
        with naming(folder):
            new.mkdir()
            yield new
            files = [path for path in new.rglob("*") if path.is_file()]
            for file in files:
                _settle(file)
            for file in files:
                place = folder / file.relative_to(new)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def remove_unfinished(folder: str | Path) -> None:
    """Removes what a process that was killed had not made whole; only where the folder is locked.

    Args:
        folder: of results.
    """
    for path in Path(folder).glob(f"{_MARK}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Lets an error of the system name the file that the user knows.

    Args:
        path: the file.

    Raises:
        OSError: whatever is raised inside, with the name.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a library's own making
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _settle(path: Path) -> None:
    """Waits until the disk has the file: its name must not be there before its content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
