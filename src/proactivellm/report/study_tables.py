"""The tables of a study in Markdown: its curves at equal latency, and each of its policies.

In: gaps between curves and rows of scores. Out: a table with a note that says how to read it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proactivellm.metrics.curves import Gap
from proactivellm.report.markdown import markdown_table
from proactivellm.report.points import LOWER_IS_BETTER, decimals_of, with_direction
from proactivellm.report.standing_table import gap_cell


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Names of the quality, the latency, and the arm or curve that all others are compared with."""

    quality: str
    latency: str
    against: str


@dataclass(frozen=True, kw_only=True)
class CurveRow:
    """A curve of an arm: its gaps to the reference at the latencies of the table."""

    arm: str
    family: str
    gaps: Sequence[Gap | None]
    is_reference: bool


def equal_latency_table(axes: Axes, at: Sequence[float], curves: Iterable[CurveRow]) -> str:
    """Quality of each curve at these latencies, and the gap to the reference there."""
    heads = ["arm", "policies", *(f"{axes.latency} {value:g}" for value in at)]
    rows = [
        [row.arm, row.family, *(_cell(gap, row.is_reference) for gap in row.gaps)] for row in curves
    ]
    note = (
        f"{with_direction(axes.quality)}, linear between points; in brackets the gap to "
        f"`{axes.against}` with its 95 % interval (paired bootstrap over instances; one training "
        "run an arm); bold: the interval leaves out 0; -: out of reach of one of the two curves"
    )
    return f"{markdown_table(heads, rows, num_texts=2)}\n\n{note}"


def points_table(
    axes: Axes, scores: Sequence[Mapping[str, Any]], gaps: Sequence[Mapping[str, Gap | None]]
) -> str:
    """Every policy, one row of scores each, with its gaps to the reference at its own latencies."""
    beside = "AIL" if axes.latency == "RCO" else "RCO"
    heads = ["arm", "policy", axes.latency, beside, axes.quality, "% of offline"]
    heads += [f"gap, {latency}" for latency in (gaps[0] if gaps else ())]
    offline = {row["arm"]: row[axes.quality] for row in scores if row["request"] == "offline"}
    rows = []
    for row, own in zip(scores, gaps, strict=True):
        quality, whole = row[axes.quality], offline.get(row["arm"])
        rows.append(
            [
                row["arm"],
                f"`{row['request']}`",
                _number(row.get(axes.latency), decimals_of(axes.latency, 3, row)),
                _number(row.get(beside), decimals_of(beside, 3, row)),
                f"{quality:.2f} ± {row.get(f'{axes.quality}_ci', 0):.2f}",
                f"{100 * quality / whole:.1f}" if whole else "-",
                *map(gap_cell, own.values()),
            ]
        )
    note = (
        f"gap: {axes.quality} above `{axes.against}` at equal latency, with its 95 % interval; "
        "% of offline: of the same model"
    )
    if axes.quality in LOWER_IS_BETTER:
        note += "; the lower the better, so that a gap below 0 is a gain"
    return f"{markdown_table(heads, rows, num_texts=2)}\n\n{note}"


def _cell(gap: Gap | None, is_reference: bool) -> str:
    if gap is None:
        return "-"
    if is_reference:
        return f"{gap.quality:.1f} ± {gap.interval:.1f}"
    text = f"{gap.quality:.1f} ({gap.gap:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}])"
    return f"**{text}**" if gap.low > 0 or gap.high < 0 else text


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
