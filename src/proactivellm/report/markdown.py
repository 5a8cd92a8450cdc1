"""Tables in Markdown. The texts in them are those of sources, models and policies."""

from collections.abc import Iterable, Sequence


def markdown_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], num_texts: int = 1
) -> str:
    """A table; nothing in a cell can end it, or be taken for HTML.

    The first `num_texts` columns hold texts; numbers stand to the right. A cell that begins with a
    backtick is code.
    """
    rules = ["---" if number < num_texts else "---:" for number in range(len(headings))]
    return "\n".join(map(_row, [headings, rules, *rows]))


def _row(cells: Sequence[str]) -> str:
    plain = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    safe = (cell if cell.startswith("`") else cell.replace("<", "&lt;") for cell in plain)
    return "| " + " | ".join(safe) + " |"
