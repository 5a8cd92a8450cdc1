"""What a command reads and writes: no output may be one of its inputs."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from proactivellm.files.apart import Input, Output, check_apart
from proactivellm.files.digest import model_files

STANDARD_INPUT = "-"
MICROPHONE = "mic"


def check_places(
    outputs: Sequence[Output],
    inputs: Iterable[tuple[str, str | Path | None]],
    model: str | None = None,
) -> None:
    """Refuses outputs that are inputs, before anything is opened for writing.

    Args:
        inputs: flag and name of each: a file, "archive.zip:member", or "-" for standard input.
        model: as it was given; of a folder, its files are read.

    Raises:
        ValueError: two of them are the same file, by whatever name.
    """
    read: list[Input] = [_input(flag, name) for flag, name in inputs]
    if model is not None:
        files = model_files(model) if Path(model).is_dir() else [model]
        read += [(f"--model {model}", file) for file in files]
    check_apart(outputs, read)


def file_beside(out: Path | None, folder: Path | None, name: str, inside: str = "") -> Path:
    """Where a file goes that lies beside a model, checked before anything is measured.

    Args:
        out: file or folder asked for.
        folder: that of the model, in which it cannot go if it lies in the cache of the hub.
        inside: folder of its own in that of the model, which may be missing yet.

    Raises:
        ValueError: there is no such place, or it cannot be written to.
    """
    from proactivellm.backbone.hub import hub_id

    place = out or (None if folder is None or hub_id(folder) else folder)
    if place is None:
        raise ValueError(f"a model of the hub has no folder to hold {name}: give --out FILE")
    if out is None:
        file = place / inside / name
    else:
        file = place / name if place.is_dir() else place
    made = out is None and not file.parent.is_dir()
    # It is replaced by one written beside it.
    places = [place if made else file.parent] + [file] * file.exists()
    if not all(os.access(place, os.W_OK) for place in places):
        raise ValueError(f"cannot write {file}: give a writable file or folder with --out")
    return file


def _input(flag: str, name: str | Path | None) -> Input:
    if name is None:
        return flag, None
    if str(name) == STANDARD_INPUT:
        return "standard input", _open_file()
    archive, colon, _ = str(name).partition(".zip:")
    place = f"{archive}.zip" if colon and not Path(name).exists() else name
    return f"{flag} {name}", place


def _open_file() -> int | None:
    """The number of standard input; None where it is closed, or no file of the system."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return None
