"""Translation pairs from plain text, TSV or gzip files."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from proactivellm.config import Strict


class Pair(NamedTuple):
    """One translation pair, each side on one line."""

    source: str
    target: str


class PairFiles(Strict):
    """Where pairs come from: one TSV file, or two parallel text files (each may be `.gz`).

    Attributes:
        tsv: file with both sides in columns.
        source_column: column of the source in `tsv`, from 0.
        target_column: column of the target in `tsv`, from 0.
        source: text file, one source a line.
        target: text file, one target a line.
        limit: keep only the first pairs; 0 = all.
    """

    tsv: str | None = None
    source_column: int = Field(default=0, ge=0)
    target_column: int = Field(default=1, ge=0)
    source: str | None = None
    target: str | None = None
    limit: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if self.tsv is not None and (self.source or self.target):
            raise ValueError("give either `tsv` or `source` and `target`, not both")
        if self.tsv is None and not (self.source and self.target):
            raise ValueError("give `tsv`, or both `source` and `target`")
        return self


def read_pairs(files: PairFiles) -> list[Pair]:
    """Read translation pairs; pairs with an empty side are left out.

    Args:
        files: what to read.

    Returns:
        The pairs in file order, inner whitespace collapsed.

    Raises:
        ValueError: if a file is missing, not UTF-8, lacks a column, or lengths differ.
    """
    if files.tsv is not None:
        rows = list(_columns(files.tsv, files.source_column, files.target_column))
    else:
        assert files.source is not None and files.target is not None
        sources, targets = list(_lines(files.source)), list(_lines(files.target))
        if len(sources) != len(targets):
            raise ValueError(
                f"{files.source} has {len(sources)} lines but {files.target} has {len(targets)}: "
                "line i of both must belong together"
            )
        rows = list(zip(sources, targets, strict=True))
    pairs = [Pair(" ".join(s.split()), " ".join(t.split())) for s, t in rows]
    pairs = [pair for pair in pairs if pair.source and pair.target]
    return pairs[: files.limit] if files.limit else pairs


def _columns(path: str, source_column: int, target_column: int) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(path), start=1):
        cells = line.split("\t")
        if len(cells) <= max(source_column, target_column):
            raise ValueError(
                f"{path}: line {number} has {len(cells)} columns; source_column={source_column} "
                f"and target_column={target_column} need {max(source_column, target_column) + 1}"
            )
        yield cells[source_column], cells[target_column]


def _lines(path: str) -> Iterator[str]:
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{path}: no such file")
    opener = gzip.open if file.suffix == ".gz" else open
    number = 0
    try:
        with opener(file, "rb") as stream:
            for number, raw in enumerate(stream, start=1):
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: line {number} is not UTF-8 ({error.reason})") from None
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read after line {number}: {error}") from None
