"""The folder of an evaluation: scores, table and curves beside the logs."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proactivellm.files.replace import write_text
from proactivellm.metrics.curve_page import curve_page
from proactivellm.metrics.plots import quality_latency_curve
from proactivellm.metrics.report import markdown_table, write_scores

SCORES_FILE = "scores.json"
TABLE_FILE = "table.md"
CURVE_FILE = "curve.png"
PAGE_FILE = "curve.html"
RESULT_FILES = (SCORES_FILE, TABLE_FILE, CURVE_FILE, PAGE_FILE)


def write_tables(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write scores.json and table.md.

    Args:
        rows: scores, one object per policy.
        folder: of the evaluation.
    """
    write_scores(folder / SCORES_FILE, rows)
    write_text(folder / TABLE_FILE, markdown_table(rows))


def write_results(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write the tables, and curve.png and curve.html where they can be drawn; warns where not.

    Args:
        rows: scores, one object per policy.
        folder: of the evaluation.
    """
    write_tables(rows, folder)
    for draw, name in ((quality_latency_curve, CURVE_FILE), (curve_page, PAGE_FILE)):
        try:
            draw(rows, folder / name)
        except (ImportError, ValueError) as error:
            warnings.warn(f"{name} was not drawn: {error}", stacklevel=2)
