"""The folder of an evaluation: scores, table and curves beside the logs."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proactivellm.files.replace import write_text
from proactivellm.metrics.folders import SCORES_FILE, write_scores
from proactivellm.report.curve import quality_latency_curve
from proactivellm.report.curve_page import curve_page
from proactivellm.report.score_table import scores_markdown

TABLE_FILE = "table.md"
CURVE_FILE = "curve.png"
PAGE_FILE = "curve.html"
RESULT_FILES = (SCORES_FILE, TABLE_FILE, CURVE_FILE, PAGE_FILE)


def write_tables(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Writes scores.json and table.md; a row is an object per policy."""
    write_scores(folder, rows)
    write_text(folder / TABLE_FILE, scores_markdown(rows))


def write_results(rows: Sequence[Mapping[str, Any]], folder: Path, about: str) -> None:
    """Writes the tables, and curve.png and curve.html where they can be drawn; warns where not.

    `about` names model and data, for the headings.
    """
    write_tables(rows, folder)
    for draw, name in ((quality_latency_curve, CURVE_FILE), (curve_page, PAGE_FILE)):
        try:
            draw(rows, folder / name, about=about)
        except (ImportError, ValueError) as error:
            warnings.warn(f"{name} was not drawn: {error}", stacklevel=2)
