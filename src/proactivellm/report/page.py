"""Self-contained HTML pages: a template of the package, data for its script, a part without script.

A page loads nothing, from here or elsewhere, so that it can be mailed and kept.
"""

import html
import json
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any


def fill_page(template: str, title: str, data: Any, static: str) -> str:
    """Fills a template of `assets/pages`, which has {{title}}, {{style}}, {{static}} and {{data}}.

    Args:
        data: plain values for the script.
        static: HTML that is read without a script.

    Raises:
        ValueError: a number is not finite.
    """
    pages = files("proactivellm") / "assets" / "pages"
    parts = {
        "title": html.escape(title),
        "style": (pages / "style.css").read_text(encoding="utf-8"),
        "static": static,
        "data": embedded_json(data),
    }
    # In one pass: what is filled in may hold braces itself.
    text = (pages / template).read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], text)


def embedded_json(data: Any) -> str:
    """JSON that may stand inside a script element: no text in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def html_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; everything in it is escaped."""
    lines = [_table_row("th", headings), *(_table_row("td", row) for row in rows)]
    return (
        f"<table><thead>{lines[0]}</thead><tbody>\n" + "\n".join(lines[1:]) + "\n</tbody></table>"
    )


def _table_row(tag: str, cells: Sequence[str]) -> str:
    inside = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{inside}</tr>"
