"""Translation: pairs from plain text, TSV or gzip files."""

from collections.abc import Iterable, Iterator

from proactivellm.files.lines import read_lines
from proactivellm.tasks.item import Item


def read_tsv(path: str, source_column: int = 0, target_column: int = 1) -> list[Item]:
    """Reads translation pairs from the columns of a file, counted from 0.

    Pairs with an empty side are left out; inner white space is collapsed. The file may be `.gz`.

    Raises:
        ValueError: the file is missing, not UTF-8, broken, or lacks a column.
    """
    return _pairs(path, _columns(path, source_column, target_column))


def read_parallel(source: str, target: str) -> list[Item]:
    """Reads translation pairs from two text files, one side a line in each, as `read_tsv` does.

    Raises:
        ValueError: a file is missing, not UTF-8 or broken, or the lengths differ.
    """
    sources, targets = list(read_lines(source)), list(read_lines(target))
    if len(sources) != len(targets):
        raise ValueError(
            f"{source} has {len(sources)} lines but {target} has {len(targets)}: "
            "line i of both must belong together"
        )
    return _pairs(source, zip(sources, targets, strict=True))


def _pairs(path: str, rows: Iterable[tuple[str, str]]) -> list[Item]:
    """Pairs with text on both sides; row i is line i of the file, from 1."""
    items = (
        Item(" ".join(s.split()), " ".join(t.split()), place=f"{path}, line {number}")
        for number, (s, t) in enumerate(rows, start=1)
    )
    return [item for item in items if item.source and item.target]


def _columns(path: str, source_column: int, target_column: int) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.split("\t")
        if len(cells) <= max(source_column, target_column):
            raise ValueError(
                f"{path}: line {number} has {len(cells)} columns; source_column={source_column} "
                f"and target_column={target_column} need {max(source_column, target_column) + 1}"
            )
        yield cells[source_column], cells[target_column]
