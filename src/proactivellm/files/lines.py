"""Lines of text files and of standard input: UTF-8, maybe compressed; whatever else is refused."""

import codecs
import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from proactivellm.files.contents import GZIP, why_no_text

NUL_REMEDY = "a NUL byte: this is not text in UTF-8; convert it first, or give another file"


def read_lines(path: str | Path) -> Iterator[str]:
    """Opens a text file, maybe compressed by gzip, and yields its lines as they come.

    "-" is standard input, of which each line is yielded as soon as it is there. Lines are without
    line ends (\\n or \\r\\n) and without a byte order mark.

    Raises:
        ValueError: the file cannot be opened (at once), or a line is not UTF-8 (on reaching it).
    """
    if str(path) == "-":
        return _decoded(standard_input(), "standard input", closes=False)  # it is not ours
    try:
        file = open(path, "rb")
        # By its name too: what is no gzip under that name is broken, and not text.
        compressed = str(path).endswith(".gz") or file.peek(len(GZIP)).startswith(GZIP)
    except OSError as error:
        remedy = "give a text file" if isinstance(error, IsADirectoryError) else "check the path"
        raise ValueError(f"cannot read {str(path)!r}: {error.strerror}: {remedy}") from error
    except ValueError as error:  # a NUL in the name
        raise ValueError(f"cannot read {str(path)!r}: {error}") from None
    return _decoded(gzip.open(file) if compressed else file, str(path))  # type: ignore[arg-type]


def standard_input() -> BinaryIO:
    """The bytes of standard input, not to be closed; raises a ValueError if there is none."""
    if sys.stdin is None:
        raise ValueError("standard input is closed: give a file, or pipe the input in")
    return sys.stdin.buffer


def _decoded(stream: BinaryIO, name: str, closes: bool = True) -> Iterator[str]:
    offset = number = 0
    try:
        for number, raw in enumerate(stream, start=1):
            if number == 1 and (reason := why_no_text(raw)):
                raise ValueError(f"{name}: {reason}")
            yield _text(raw, f"{name}, line {number}", offset)
            offset += len(raw)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{name}: cannot be read after line {number}: {reason}") from None
    finally:
        if closes:
            stream.close()


def _text(raw: bytes, where: str, offset: int) -> str:
    """One line; `offset` is that of its first byte."""
    bom = len(codecs.BOM_UTF8) if not offset and raw.startswith(codecs.BOM_UTF8) else 0
    try:
        line = raw[bom:].decode("utf-8")
    except UnicodeDecodeError as error:
        position = bom + error.start
        raise ValueError(
            f"{where}: 0x{raw[position]:02x} at byte offset {offset + position} is not UTF-8 "
            f"({error.reason}); convert the text first, for example: "
            "iconv -f LATIN1 -t UTF-8 IN > OUT"
        ) from error
    if "\0" in line:
        raise ValueError(f"{where}: {NUL_REMEDY}")
    return line.removesuffix("\n").removesuffix("\r")
