"""What a command says on standard error beside its results."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from proactivellm.output.printable import printable


def warn(message: str) -> None:
    """Says something in one line."""
    print(printable(message), file=sys.stderr, flush=True)


@contextmanager
def status(message: str) -> Iterator[None]:
    """Says what is going on: on a terminal as long as it does, elsewhere as a line that stays."""
    if not sys.stderr.isatty():
        warn(message)
        yield
        return
    shown = printable(message)[: shutil.get_terminal_size().columns - 1]
    print(shown, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:  # blanks, as not every terminal can erase a line
        print(f"\r{' ' * len(shown)}\r", end="", file=sys.stderr, flush=True)
