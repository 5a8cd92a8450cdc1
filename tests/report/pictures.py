"""What a picture that was written holds, and whether parts of a figure lie on each other."""

import html
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox


def svg_comments(path: Path) -> set[str]:
    """The texts of an SVG: matplotlib keeps each in a comment before its outlines."""
    found = re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))
    return {html.unescape(text) for text in found}


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def overlapping(boxes: "Sequence[Bbox]") -> "list[tuple[Bbox, Bbox]]":
    """The pairs that lie on each other."""
    return [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]


def shown_ticks(axes: "Axes") -> "list[Text]":
    """The numbers along both axes that are inside the limits."""
    found = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if low <= tick.get_loc() <= high:
                found += [t for t in (tick.label1, tick.label2) if t.get_visible() and t.get_text()]
    return found
