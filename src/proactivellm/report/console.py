"""Tables on a terminal: as wide as it is, 100 columns elsewhere; what does not fit is named."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from proactivellm.output.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100  # columns, where there is no terminal
_NARROW = 24  # cells of a first column that is folded


def plain_table(
    title: str | None,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str | None = None,
) -> Table:
    """A table with texts in the first column and numbers in the others, to their right.

    What cannot be printed is replaced: texts are those of sources and models.
    """
    title = title and "\n".join(map(printable, title.splitlines()))
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=number > 0)
    table.columns[0].overflow = "fold"
    for row in rows:
        table.add_row(*map(printable, row))
    return table


def print_tables(tables: Iterable[Table], hint: str = "") -> None:
    """Prints tables of `plain_table`; columns without room are left out from the right, and named.

    `hint` tells where the reader finds everything.
    """
    from rich.console import Console

    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(markup=False, emoji=False, width=WIDTH)
    for table in tables:
        left_out = _fit(table, console)
        console.print(table)
        if left_out:
            names = ", ".join(left_out)
            console.print(f"no room for: {names}{f' ({hint})' if hint else ''}")


def _fit(table: Table, console: "Console") -> list[str]:
    """Narrows a table to the console; returns the headings of the columns that it took out."""
    unbounded = console.options.update(max_width=10_000)
    left_out: list[str] = []
    while console.measure(table, options=unbounded).maximum > console.width:
        # Texts can be folded; only then do numbers have to go.
        first = table.columns[0]
        if first.max_width is None:
            first.max_width = _NARROW
        elif len(table.columns) > 1:
            left_out.insert(0, str(table.columns.pop().header))
        else:
            break
    return left_out


def print_scores(rows: Sequence[Mapping[str, Any]], hint: str = "--json has all") -> None:
    """Prints scores, one row per policy; `hint` tells where the reader finds everything."""
    from proactivellm.report.score_table import score_table

    print_tables([score_table(rows)], hint)
