"""What a command says on standard error beside its results."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from proactivellm.output.printable import printable

_status = ""  # what stands in the last line of a terminal, as long as it does


def warn(message: str) -> None:
    """Says something in one line."""
    _erase_status()
    print(printable(message), file=sys.stderr, flush=True)


@contextmanager
def status(message: str) -> Iterator[None]:
    """Says what is going on: on a terminal as long as it does, elsewhere as a line that stays."""
    global _status
    if sys.stderr.isatty():
        _status = printable(message)[: shutil.get_terminal_size().columns - 1]
        print(_status, end="", file=sys.stderr, flush=True)
    else:
        warn(message)
    try:
        yield
    finally:
        _erase_status()


def _erase_status() -> None:
    """By blanks, as not every terminal can erase a line."""
    global _status
    if _status:
        print(f"\r{' ' * len(_status)}\r", end="", file=sys.stderr, flush=True)
        _status = ""
