"""Policies against a family at equal latency as a table: for the terminal and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from proactivellm.metrics.curves import Gap
from proactivellm.metrics.standing import AT_EQUAL, Standings
from proactivellm.report.console import plain_table
from proactivellm.report.markdown import markdown_table
from proactivellm.report.points import LOWER_IS_BETTER, decimals_of


def standings_table(found: Standings, scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each policy; `scores` are theirs, by request."""
    headings, rows = _cells(found, scores)
    return plain_table(None, headings, rows, caption=_note(found))


def standings_markdown(found: Standings, scores: Mapping[str, Mapping[str, Any]]) -> str:
    """The same in Markdown; ends in a newline."""
    headings, rows = _cells(found, scores)
    return f"{markdown_table(headings, rows)}\n\n{_note(found)}\n"


def gap_cell(gap: Gap | None) -> str:
    """A gap with its interval; "-" where there is none."""
    return "-" if gap is None else f"{gap.gap:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"


def _cells(
    found: Standings, scores: Mapping[str, Mapping[str, Any]]
) -> tuple[list[str], Sequence[Sequence[str]]]:
    headings = ["policy", found.quality, *(f"at equal {name}" for name in AT_EQUAL)]
    headings += [f"share, {name}" for name in AT_EQUAL if found.ceiling]
    headings += AT_EQUAL
    rows = []
    for row in found.rows:
        own = scores[row.policy]
        cells = [row.policy, _number(own.get(found.quality), 1)]
        cells += [gap_cell(row.gaps[name]) for name in AT_EQUAL]
        if found.ceiling:
            shares = (row.shares[name] for name in AT_EQUAL)
            cells += ["-" if share is None else f"{100 * share:.0f} %" for share in shares]
        cells += [_number(own.get(name), decimals_of(name, 2, own)) for name in AT_EQUAL]
        rows.append(cells)
    return headings, rows


def _note(found: Standings) -> str:
    note = (
        f"at equal ...: {found.quality} above {found.baseline}, linear between its points, with "
        f"the 95% interval of the paired bootstrap ({found.num_bootstrap} resamples); -: out of "
        "reach"
    )
    if found.ceiling:
        note += f"; share: of the way from {found.baseline} to {found.ceiling}"
    if found.quality in LOWER_IS_BETTER:
        note += "; the lower the better, so that a gap below 0 is a gain"
    return note


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
