"""Translation: pairs from plain text, TSV or gzip files."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from proactivellm.files.lines import read_lines
from proactivellm.tasks.item import Item


def read_tsv(path: str, source_column: int = 0, target_column: int = 1) -> Iterator[Item]:
    """Reads translation pairs from the columns of a file, counted from 0, as they are asked for.

    Pairs with an empty side are left out; inner white space is collapsed. The file may be `.gz`.

    Raises:
        ValueError: the file is missing, not UTF-8, broken, or lacks a column.
    """
    return _pairs(path, _columns(path, source_column, target_column))


def read_parallel(source: str, target: str) -> Iterator[Item]:
    """Reads translation pairs from two text files, one side a line in each, as `read_tsv` does.

    Raises:
        ValueError: a file is missing, not UTF-8 or broken, or the lengths differ.
    """
    return _pairs(source, _side_by_side(source, target))


def _side_by_side(source: str, target: str) -> Iterator[tuple[str, str]]:
    rows = zip_longest(read_lines(source), read_lines(target))
    for number, (source_line, target_line) in enumerate(rows, start=1):
        if source_line is None or target_line is None:
            num_longer = number + sum(1 for _ in rows)
            shorter, longer = (source, target) if source_line is None else (target, source)
            raise ValueError(
                f"{longer} has {num_longer} lines but {shorter} has {number - 1}: "
                "line i of both must belong together"
            )
        yield source_line, target_line


def _pairs(path: str, rows: Iterable[tuple[str, str]]) -> Iterator[Item]:
    """Pairs with text on both sides; row i is line i of the file, from 1."""
    items = (
        Item(" ".join(s.split()), " ".join(t.split()), place=f"{path}, line {number}")
        for number, (s, t) in enumerate(rows, start=1)
    )
    return (item for item in items if item.source and item.target)


def _columns(path: str, source_column: int, target_column: int) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.split("\t")
        if len(cells) <= max(source_column, target_column):
            raise ValueError(
                f"{path}: line {number} has {len(cells)} columns; source_column={source_column} "
                f"and target_column={target_column} need {max(source_column, target_column) + 1}"
            )
        yield cells[source_column], cells[target_column]
