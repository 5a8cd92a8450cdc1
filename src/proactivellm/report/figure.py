"""What the pictures share: fonts for any script, figures without pyplot.

Needs the extra `plot` (matplotlib). Nothing global is touched, and no display is needed.
"""

import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proactivellm.files.replace import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150  # of figure and file: the size of a text is not quite proportional to it
_FONT = "DejaVu Sans"  # comes with matplotlib
_FALLBACKS = (  # where they are installed: for scripts that it lacks
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR"),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Hiragino Sans"),
    *("Malgun Gothic", "Apple SD Gothic Neo", "Noto Sans Devanagari", "Noto Sans Thai"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Emoji", "Arial Unicode MS"),
)


def new_figure(width: float, height: float) -> "Figure":
    """A figure of so many inches in constrained layout, drawn without pyplot (Agg for PNG).

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib, which is not installed: pip install proactivellm[plot]"
        ) from error
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def plain_text() -> dict[str, Any]:
    """Properties of text from data: any script, and a word with $ is a word, not a formula."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    fallbacks = [name for name in _FALLBACKS if name in installed]
    return {"parse_math": False, "fontfamily": [_FONT, *fallbacks]}


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Writes a picture; one warning for all characters that no installed font has.

    The ending of `path` is the format (.png, .svg, .pdf).

    Raises:
        ValueError: there is no such format.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with replacing(path) as new:
            figure.savefig(new)
    missing = 0
    # matplotlib warns of each character.
    for warning in caught:
        if str(warning.message).startswith("Glyph "):
            missing += 1
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if missing:
        warnings.warn(
            f"{path}: no installed font has some of its characters, which are drawn as boxes; "
            "install one that has them, such as Noto Sans CJK",
            stacklevel=2,
        )


def shorten(text: str, length: int) -> str:
    """A text of at most so many characters, with a sign where it was cut."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text if len(text) <= length else text[: length - 1] + "…"


def in_lines(text: str, figure: "Figure", fontsize: float = 9.0) -> str:
    """A text in lines that fit the width of a figure, broken between words where it can be."""
    per_line = int(figure.get_figwidth() * 72 / (0.56 * fontsize))
    parts = [textwrap.wrap(line, per_line, break_on_hyphens=False) for line in text.splitlines()]
    return "\n".join(line for part in parts for line in part)
