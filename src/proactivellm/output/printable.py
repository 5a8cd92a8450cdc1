"""Text of others on a terminal: it must show itself, and do nothing else."""

import sys


def printable(text: str) -> str:
    """Text without what would move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def write_out(text: str) -> None:
    """Writes to standard output: as it is into a pipe, without control characters on a terminal."""
    if sys.stdout.isatty():
        text = "".join(c if c in "\n\t" else printable(c) for c in text)
    sys.stdout.write(text)
    sys.stdout.flush()


def in_one_line(text: str) -> str:
    """Text of which a line is to hold all."""
    return text.replace("\r", " ").replace("\n", " ")
