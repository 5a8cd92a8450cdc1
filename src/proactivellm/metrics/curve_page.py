"""Quality against latency as one HTML file: choose metrics and policies, see all numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proactivellm.files.replace import write_text
from proactivellm.metrics.figure import COLOURS
from proactivellm.metrics.page import fill_page, html_table
from proactivellm.metrics.points import (
    LATENCIES,
    QUALITIES,
    choose_quality,
    decimals_of,
    present,
    with_direction,
    with_unit,
)


def curve_page(
    scores: Sequence[Mapping[str, Any]],
    path: str | Path,
    title: str = "Quality and latency",
) -> None:
    """Writes a page with the curve and a table; it needs no network, and the table no script.

    Args:
        scores: what `report.score` returned, one object per policy; metrics may be missing.
        path: the file, replaced.
        title: heading.

    Raises:
        ValueError: no policy has any quality, or none has any latency.
    """
    qualities, latencies = present(scores, QUALITIES), present(scores, LATENCIES)
    if not qualities or not latencies:
        lacking = "quality" if not qualities else "latency"
        wanted = ", ".join(QUALITIES if not qualities else LATENCIES)
        raise ValueError(f"no policy has a {lacking} ({wanted}): give scores with references")
    data = {
        "scores": [dict(row) for row in scores],
        "qualities": qualities,
        "latencies": latencies,
        "quality": choose_quality(scores),
        "latency": latencies[0],
        "units": {name: with_unit(name, scores) for name in latencies},
        "directions": {name: with_direction(name) for name in qualities},
        "colours": COLOURS,
    }
    columns = [*qualities, *latencies]
    rows = [[str(row["policy"]), *(_cell(row, key) for key in columns)] for row in scores]
    static = html_table(["policy", *columns], rows)
    write_text(path, fill_page("curve.html", title, data, static))


def _cell(row: Mapping[str, Any], key: str) -> str:
    value, interval = row.get(key), row.get(f"{key}_ci")
    if value is None:
        return "-"
    decimals = decimals_of(key, 0 if key.endswith("_ms") else 2, row)
    text = f"{value:.{decimals}f}"
    return text if interval is None else f"{text} ± {interval:.{decimals}f}"
