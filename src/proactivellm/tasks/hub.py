"""Data sets of the Hugging Face hub, or a folder in the hub's format, by the package `datasets`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from proactivellm.files.lines import read_lines
from proactivellm.tasks.item import Item
from proactivellm.tasks.rows import RowTask, row_item

SPLITS = {"train": "train", "valid": "validation", "test": "test"}  # as the hub names them


def read_hub(
    name: str,
    task: RowTask,
    columns: Mapping[str, str],
    *,
    split: str,
    subset: str | None = None,
    revision: str | None = None,
) -> Iterator[Item]:
    """The items of one split, in order; rows with an empty side are left out.

    Args:
        name: id of a data set on the hub, or a folder.
        columns: see `rows.row_item`.
        split: as the data set names it.
        subset: of a data set that has several: the hub's "config", or a folder inside.
        revision: branch, tag or commit of the hub.

    Raises:
        ValueError: there is no such data set, subset or split, the package is not installed, or a
            row does not fit.
    """
    rows = _load(name, subset, split, revision)
    for number, row in enumerate(rows, start=1):
        item = row_item(row, task, columns, f"{name} ({split}), row {number}")
        if item is not None:
            yield item


def read_json_lines(path: str, task: RowTask) -> list[Item]:
    """Rows of the same form from a file, one JSON object a line (`Dataset.to_json` writes such).

    Raises:
        ValueError: the file cannot be read, or a line does not fit.
    """
    items = []
    for number, line in enumerate(read_lines(path), start=1):
        place = f"{path}, line {number}"
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise ValueError(f"{place}: not valid JSON: {error}") from None
        item = None if row is None else row_item(row, task, {}, place)
        items += [] if item is None else [item]
    return items


def _load(name: str, subset: str | None, split: str, revision: str | None) -> Any:
    try:
        from datasets import load_dataset
    except ImportError:
        raise ValueError(
            "data sets of the hub need the package datasets, which the extra `train` brings: "
            "pip install 'proactivellm[train]'"
        ) from None
    if Path(name).is_dir():
        revision = None  # a folder has none
    what = f"data set {name!r}" + (f", subset {subset!r}" if subset else "")
    try:
        try:
            return load_dataset(name, subset, split=split, revision=revision)
        except ValueError as error:
            if not subset or "BuilderConfig" not in str(error):
                raise
            # Where no card names subsets, as on the hub's branch of converted files.
            return load_dataset(name, data_dir=subset, split=split, revision=revision)
    except Exception as error:  # the hub, the disk and every file format have errors of their own
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise ValueError(f"cannot load {what}, split {split!r}: {reason}") from error
