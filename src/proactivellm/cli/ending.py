"""How the program ends: one line for a mistake of the user's, quietly where nobody reads on.

In: what a command raised, or the standard streams as they were found. Out: an exit code.
"""

import errno
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, TextIO

import typer

from proactivellm.output.printable import printable

REFUSED = 2
READER_GONE = 141  # as a shell counts a program that SIGPIPE ended
# What command lines are refused with; newer releases of typer have a click of their own.
USAGE_ERROR: type[Any] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
_NO_MEMORY = ("can't allocate memory", "out of memory")  # in what torch raises
_REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EISDIR: "give a file",
    errno.EEXIST: "that is a file: give a folder",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EACCES: "check who may read and write it",
    errno.ENOSPC: "make room, or write to another place",
    errno.EDQUOT: "make room, or write to another place",
    errno.EROFS: "write to another place",
    errno.EMFILE: "raise the limit with `ulimit -n`, or give fewer files",
    errno.ENAMETOOLONG: "give a shorter name",
}


def open_standard_streams() -> None:
    """Puts the null device where a standard stream is closed.

    Otherwise the next file to be opened would have its number, and whatever is printed would go
    into that file.

    Raises:
        ValueError: standard output is closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")
        raise ValueError("standard output is closed: send it to a file, or to /dev/null")


def leave_pipe() -> int:
    """Makes what is still printed go nowhere, as nobody reads it; returns the exit code."""
    _silence(sys.stdout)
    try:
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)
    return READER_GONE


def flush_output() -> None:
    """Writes what is still to be printed, so that a failure is told.

    Raises:
        OSError: it cannot be written; names standard output.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence(sys.stdout)  # or Python tries again when it exits
        error.filename = error.filename or "standard output"
        raise


def _silence(stream: TextIO) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def refuse(lines: Iterable[str]) -> NoReturn:
    """Ends the program with the reason; a recipe may have several mistakes, one a line."""
    for line in lines:
        print(f"error: {printable(line)}", file=sys.stderr)
    sys.exit(REFUSED)


def explain_os_error(error: OSError) -> str:
    """One line about a file that cannot be read or written, with the remedy of that cause."""
    if error.strerror is None:
        return str(error)
    reason = error.strerror
    remedy = _REMEDIES.get(error.errno or 0)
    name = error.filename
    if isinstance(name, bytes | str | os.PathLike):
        name = os.fsdecode(name)
        folder = Path(name).parent
        if error.errno == errno.ENOENT and not folder.exists():
            remedy = f"there is no folder {folder}: make it, or check the path"
        reason = f"{name}: {reason}"
    return f"{reason}: {remedy}" if remedy else reason


def explain_usage(error: Any) -> str:
    """One line about a command line that does not fit; `error` is a USAGE_ERROR."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}: see `{context.command_path} --help`" if context else message


def explain_limit(error: RuntimeError | MemoryError) -> str | None:
    """One line where an input is too much for the machine; None of anything else, a bug."""
    if isinstance(error, RecursionError):
        *_, innermost = traceback.extract_tb(error.__traceback__)
        in_json = Path(innermost.filename).parent.name == "json"
        return "JSON that is nested too deeply: check the files given" if in_json else None
    told = isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY)
    return "out of memory: give shorter sources, --window, or fewer --lanes" if told else None
