"""Comparisons of two systems as tables: for the terminal and in Markdown."""

from collections.abc import Sequence

from rich.table import Table

from proactivellm.metrics.comparison import COMPARED, Comparison
from proactivellm.report.console import plain_table
from proactivellm.report.markdown import markdown_table
from proactivellm.report.points import LOWER_IS_BETTER, decimals_of

_HEADINGS = ("metric", "of A", "of B", "B - A", "95% interval", "p", "instances")


def comparison_tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """Tables for the terminal, one per pair, a row per metric."""
    tables = []
    for comparison in comparisons:
        title = "\n".join(f"{side}: {_name(comparison, side)}" for side in "AB")
        tables.append(plain_table(title, _HEADINGS, _rows(comparison)))
    if tables:
        tables[-1].caption = _footnote(comparisons)
    return tables


def comparison_markdown(comparisons: Sequence[Comparison]) -> str:
    """One table of all pairs in Markdown, and what its columns mean."""
    rows = [[str(c["A"]), str(c["B"]), *row] for c in comparisons for row in _rows(c)]
    table = markdown_table(("A", "B", *_HEADINGS), rows, num_texts=3)
    return f"{table}\n\n{_footnote(comparisons)}\n"


def _name(comparison: Comparison, side: str) -> str:
    """The policy, as it was asked for where that is known."""
    return str(comparison.get(f"{side}_request") or comparison[side])


def _rows(comparison: Comparison) -> list[list[str]]:
    rows = []
    for name, found in comparison["metrics"].items():
        decimals = decimals_of(name, COMPARED[name], comparison)
        values = [f"{found[key]:.{decimals}f}" for key in ("first", "second")]
        rows.append(
            [
                *(name, *values, f"{found['difference']:+.{decimals}f}"),
                f"{found['low']:+.{decimals}f} to {found['high']:+.{decimals}f}",
                *(f"{found['p']:.3f}", str(found["num_instances"])),
            ]
        )
    return rows


def _footnote(comparisons: Sequence[Comparison]) -> str:
    resamples = " or ".join(str(n) for n in sorted({c["num_bootstrap"] for c in comparisons}))
    note = f"Paired bootstrap, {resamples} resamples; p is two-sided, not corrected for many tests."
    if any(c["latency_unit"] == "ms" for c in comparisons):
        note += " Lags in ms."
    for counted in dict.fromkeys(c["counting_note"] for c in comparisons if "counting_note" in c):
        note += f" {counted[0].upper()}{counted[1:]}."
    if any(name in c["metrics"] for c in comparisons for name in LOWER_IS_BETTER):
        note += f" {' and '.join(LOWER_IS_BETTER)}: lower is better."
    return note
