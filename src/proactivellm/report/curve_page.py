"""Quality against latency as one HTML file: choose metrics and policies, see all numbers."""

from collections.abc import Sequence
from pathlib import Path

from proactivellm.files.replace import write_text
from proactivellm.report.looks import MARKERS, looks
from proactivellm.report.page import fill_page, html_table
from proactivellm.report.points import (
    LATENCIES,
    QUALITIES,
    Row,
    asked_for,
    caption,
    choose_quality,
    decimals_of,
    family,
    is_offline,
    present,
    setting,
    split_family,
    with_direction,
    with_unit,
)


def curve_page(scores: Sequence[Row], path: str | Path, about: str = "") -> None:
    """Writes a page with the curve and a table; it needs no network, and the table no script.

    `about` names model and data.

    Raises:
        ValueError: no policy has any quality, or none has any latency.
    """
    qualities, latencies = present(scores, QUALITIES), present(scores, LATENCIES)
    if not qualities or not latencies:
        lacking = "quality" if not qualities else "latency"
        wanted = ", ".join(QUALITIES if not qualities else LATENCIES)
        raise ValueError(f"no policy has a {lacking} ({wanted}): give scores with references")
    families = [family(row) for row in scores]
    data = {
        "scores": [dict(row) for row in scores],
        "names": [_name(row) for row in scores],
        "settings": [setting(row) for row in scores],
        "families": families,
        "offline": [is_offline(name) for name in families],
        "looks": {name: look._asdict() for name, look in looks(families).items()},
        "markers": MARKERS,
        "qualities": qualities,
        "latencies": latencies,
        "quality": choose_quality(scores),
        "latency": latencies[0],
        "units": {name: with_unit(name, scores) for name in latencies},
        "directions": {name: with_direction(name) for name in qualities},
        "caption": caption(scores, about),
    }
    columns = [*qualities, *latencies]
    rows = [[_name(row), *(_cell(row, key) for key in columns)] for row in scores]
    static = html_table(["policy", *columns], rows)
    write_text(path, fill_page("curve.html", "Quality and latency", data, static))


def _name(row: Row) -> str:
    """The policy as it was asked for, after its arm."""
    arm, _ = split_family(family(row))
    return asked_for(row) if "request" not in row or not arm else f"{arm}/{asked_for(row)}"


def _cell(row: Row, key: str) -> str:
    value, interval = row.get(key), row.get(f"{key}_ci")
    if value is None:
        return "-"
    decimals = decimals_of(key, 0 if key.endswith("_ms") else 2, row)
    text = f"{value:.{decimals}f}"
    return text if interval is None else f"{text} ± {interval:.{decimals}f}"
