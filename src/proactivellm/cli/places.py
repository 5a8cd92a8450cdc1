"""What a command reads and writes: no output may be one of its inputs."""

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
