"""The tables of a study in Markdown: its curves at equal latency, and each of its policies.

In: gaps between curves and rows of scores. Out: a table with a note that says how to read it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proactivellm.metrics.seeds import SeedGap
from proactivellm.report.markdown import markdown_table
from proactivellm.report.points import LOWER_IS_BETTER, decimals_of, with_direction
from proactivellm.report.standing_table import gap_cell


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Names of the quality, the latency, and the arm or curve that all others are compared with."""

    quality: str
    latency: str
    against: str
    ceiling: str | None = None
    num_seeds: int = 1


@dataclass(frozen=True, kw_only=True)
class CurveRow:
    """A curve of an arm: its gaps to the reference at the latencies of the table."""

    arm: str
    family: str
    gaps: Sequence[SeedGap | None]
    is_reference: bool


@dataclass(frozen=True, kw_only=True)
class PointRow:
    """A policy of an arm: its scores, means over seeds, and its gaps by measure of latency."""

    scores: Mapping[str, Any]  # with `arm` and `request`
    qualities: Sequence[float]  # under each seed
    gaps: Mapping[str, SeedGap | None]


def equal_latency_table(axes: Axes, at: Sequence[float], curves: Iterable[CurveRow]) -> str:
    """Quality of each curve at these latencies, and the gap to the reference there."""
    heads = ["arm", "policies", *(f"{axes.latency} {value:g}" for value in at)]
    rows = [
        [row.arm, row.family, *(_cell(gap, row.is_reference) for gap in row.gaps)] for row in curves
    ]
    trained = "mean of the seeds" if axes.num_seeds > 1 else "one training run an arm"
    note = (
        f"{with_direction(axes.quality)}, linear between points; in brackets the gap to "
        f"`{axes.against}` with its 95 % interval (paired bootstrap over instances; {trained}); "
        "bold: the interval leaves out 0; -: out of reach of one of the two curves"
    )
    if axes.num_seeds > 1:
        note += (
            f"; {{ }}: least and largest of the {axes.num_seeds} seeds, each paired with its own"
        )
    if axes.ceiling:
        note += f"; %: of the way from there to `{axes.ceiling}` on the same model"
    return f"{markdown_table(heads, rows, num_texts=2)}\n\n{note}"


def points_table(axes: Axes, points: Sequence[PointRow]) -> str:
    """Every policy, one row of scores each, with its gaps to the reference at its own latencies."""
    beside = "AIL" if axes.latency == "RCO" else "RCO"
    latencies = list(points[0].gaps) if points else []
    heads = ["arm", "policy", axes.latency, beside, axes.quality, "% of offline"]
    heads += [f"gap, {latency}" for latency in latencies]
    heads += [f"share, {latency}" for latency in latencies if axes.ceiling]
    every = [point.scores for point in points]
    offline = {row["arm"]: row[axes.quality] for row in every if row["request"] == "offline"}
    rows = []
    for point in points:
        row = point.scores
        quality, whole = row[axes.quality], offline.get(row["arm"])
        few = "" if len(point.qualities) in (1, axes.num_seeds) else f" ({len(point.qualities)})"
        rows.append(
            [
                row["arm"],
                f"`{row['request']}`{few}",
                _number(row.get(axes.latency), decimals_of(axes.latency, 3, row)),
                _number(row.get(beside), decimals_of(beside, 3, row)),
                f"{quality:.2f} ± {row.get(f'{axes.quality}_ci', 0):.2f}{_spread(point.qualities)}",
                f"{100 * quality / whole:.1f}" if whole else "-",
                *(_gap_cell(gap) for gap in point.gaps.values()),
                *(_share(gap) or "-" for gap in point.gaps.values() if axes.ceiling),
            ]
        )
    note = (
        f"gap: {axes.quality} above `{axes.against}` at equal latency, with its 95 % interval; "
        "% of offline: of the same model"
    )
    if axes.num_seeds > 1:
        note += (
            "; all are means of the seeds, { }: the least and the largest of them, ( ): how many "
            "have the policy if not all; ±: the mean of their intervals over instances"
        )
    if axes.ceiling:
        note += f"; share: of the way to `{axes.ceiling}` on the same model"
    if axes.quality in LOWER_IS_BETTER:
        note += "; the lower the better, so that a gap below 0 is a gain"
    return f"{markdown_table(heads, rows, num_texts=2)}\n\n{note}"


def _cell(gap: SeedGap | None, is_reference: bool) -> str:
    if gap is None:
        return "-"
    mean = gap.mean
    if is_reference:
        return f"{mean.quality:.1f} ± {mean.interval:.1f}{_spread(gap.qualities, 1)}"
    share = f", {text}" if (text := _share(gap)) else ""
    text = f"{mean.quality:.1f} ({_gap_cell(gap)}{share})"
    return f"**{text}**" if mean.low > 0 or mean.high < 0 else text


def _gap_cell(gap: SeedGap | None) -> str:
    if gap is None:
        return "-"
    return gap_cell(gap.mean) + _spread(gap.gaps, 1, "+")


def _share(gap: SeedGap | None) -> str:
    """The mean share of the way with its spread; empty where there is none."""
    if gap is None or not gap.shares:
        return ""
    percent = [100 * share for share in gap.shares]
    return f"{sum(percent) / len(percent):.0f} %{_spread(percent, 0)}"


def _spread(values: Sequence[float], decimals: int = 2, sign: str = "-") -> str:
    """Least and largest of the seeds; empty of one."""
    if len(values) < 2:
        return ""
    return f" {{{min(values):{sign}.{decimals}f}..{max(values):{sign}.{decimals}f}}}"


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
