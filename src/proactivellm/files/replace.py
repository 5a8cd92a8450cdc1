"""Files are replaced whole or not at all: a full disk or a kill leaves what was there."""

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

    Raises:
        OSError: it cannot be written; names the file, which is as it was.
    """
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Replaces a JSON file by plain values.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields where to write, with the ending of `path`, and replaces the file once that is whole.

    Of a link, what it leads to is replaced. What is no file, such as a pipe or /dev/stdout, cannot
    be replaced, and is written to as it is.

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
    """Yields an empty folder to write to, and replaces the files of `folder` once all are whole.

    Folders may be made in it. `folder` is made if it is missing; what is not written anew stays.

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
            # All are on the disk before the first is replaced.
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
    """Removes what a killed process had not made whole; only where the folder is locked."""
    for path in Path(folder).glob(f"{_MARK}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Lets an OSError raised inside name the file that the user knows."""
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
