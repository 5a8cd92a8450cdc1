"""Two pictures: the quality-latency curve of some policies, and the READ/WRITE path of an instance.

Needs the extra `plot` (matplotlib). Figures are made without pyplot: no global state, no display.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_INK, _GRID = "#333333", "#D9DDE3"
_UNREAD, _SEEN, _NEW, _WRITE = "#F4F5F7", "#CFE3F3", "#6AAEDB", "#D55E00"
_PLAIN: dict[str, Any] = {"parse_math": False}  # a word with $ is a word, not a formula


def quality_latency_curve(
    scores: Sequence[Mapping[str, Any]],
    path: str | Path,
    quality: str = "BLEU",
    latency: str = "LAAL",
) -> None:
    """Draws quality against latency, one line per family of policies (the name before ':').

    Args:
        scores: what `report.score` returned, one object per point; points that lack either number
            are left out.
        path: picture to write; its ending is the format (.png, .svg, .pdf).
        quality: key of the vertical axis; its interval `{quality}_ci` is drawn where present.
        latency: key of the horizontal axis.

    Raises:
        ValueError: no point has both numbers.
        ImportError: matplotlib is not installed.
    """
    points = [
        row for row in scores if row.get(quality) is not None and row.get(latency) is not None
    ]
    if not points:
        raise ValueError(
            f"no policy has both {quality} and {latency}: give scores with references, "
            "or name other metrics"
        )
    families: dict[str, list[Mapping[str, Any]]] = {}
    for row in points:
        families.setdefault(str(row["policy"]).partition(":")[0], []).append(row)
    figure = _new_figure(7.0, 4.6)
    axes = figure.add_subplot()
    for number, (family, rows) in enumerate(families.items()):
        rows = sorted(rows, key=lambda row: row[latency])
        x, y = [row[latency] for row in rows], [row[quality] for row in rows]
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        axes.plot(x, y, color=colour, marker=marker, markersize=5.5, linewidth=1.6, label=family)
        interval = [row.get(f"{quality}_ci") or 0.0 for row in rows]
        if any(interval):
            axes.errorbar(x, y, interval, fmt="none", color=colour, alpha=0.5, capsize=2)
        for row in rows:
            _label_point(axes, str(row["policy"]), (row[latency], row[quality]), colour)
    axes.set_xlabel(_with_unit(latency), color=_INK)
    axes.set_ylabel(quality, color=_INK)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.1, 0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    figure.savefig(path, dpi=150)


def read_write_path(
    source_units: Sequence[str],
    target_words: Sequence[str],
    delays: Sequence[int],
    path: str | Path,
    title: str = "",
) -> None:
    """Draws one instance as a staircase: a step right is a READ, a step down is a WRITE.

    Args:
        source_units: the units of the source as text, from left to right.
        target_words: the words that were written, from top to bottom.
        delays: for each target word, source units read when it was written; non-decreasing.
        path: picture to write; its ending is the format (.png, .svg, .pdf).
        title: heading; empty for none.

    Raises:
        ValueError: either side is empty, or the delays do not fit them.
        ImportError: matplotlib is not installed.
    """
    _check_delays(len(source_units), len(target_words), delays)
    columns, rows = len(source_units), len(target_words)
    figure = _new_figure(1.6 + 0.5 * max(columns, 6), 1.5 + 0.36 * max(rows, 4))
    axes = figure.add_subplot()
    _draw_cells(axes, columns, delays)
    x, y = _staircase(delays, rows)
    axes.plot(x, y, color=_INK, linewidth=1.8, solid_joinstyle="miter", zorder=3, clip_on=False)
    # In the last unit read: its column and the word's row are what the WRITE had just seen.
    axes.scatter(
        [delay - 0.5 for delay in delays],
        [row + 0.5 for row in range(rows)],
        s=34,
        color=_WRITE,
        zorder=4,
    )
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_xticks([i + 0.5 for i in range(columns)])
    axes.set_xticklabels(source_units, rotation=40, ha="left", rotation_mode="anchor", **_PLAIN)
    axes.set_yticks([i + 0.5 for i in range(rows)])
    axes.set_yticklabels(target_words, **_PLAIN)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, colors=_INK, labelsize=10)
    axes.spines[:].set_visible(False)
    _draw_legend(figure)
    if title:
        figure.suptitle(title, color=_INK, fontsize=11, **_PLAIN)
    figure.savefig(path, dpi=150)


def _new_figure(width: float, height: float) -> "Figure":
    """A figure in inches that draws itself (Agg for PNG), independent of pyplot."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib, which is not installed: pip install proactivellm[plot]"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _label_point(axes: "Axes", policy: str, point: tuple[float, float], colour: str) -> None:
    family, _, settings = policy.partition(":")
    axes.annotate(
        settings or family,
        point,
        xytext=(5, -11),
        textcoords="offset points",
        fontsize=7.5,
        color=colour,
        **_PLAIN,
    )


def _with_unit(latency: str) -> str:
    if latency in ("RCO", "AP"):
        return f"{latency} (share of the source)"
    return f"{latency} (ms)" if latency.endswith("_ms") else f"{latency} (source units)"


def _check_delays(num_source: int, num_target: int, delays: Sequence[int]) -> None:
    if not num_source or not num_target or len(delays) != num_target:
        raise ValueError(
            f"{num_source} source units, {num_target} target words, {len(delays)} delays: "
            "a path needs at least one of each, and one delay per target word"
        )
    if list(delays) != sorted(delays) or delays[0] < 0 or delays[-1] > num_source:
        raise ValueError(
            f"delays {list(delays)} are no path: they must not decrease and lie in 0..{num_source}"
        )


def _draw_cells(axes: "Axes", columns: int, delays: Sequence[int]) -> None:
    """A row per word: what was read before, what was read for this word, what was yet unread."""
    before = 0
    for row, delay in enumerate(delays):
        for column in range(columns):
            colour = _SEEN if column < before else _NEW if column < delay else _UNREAD
            axes.fill_between(
                [column + 0.03, column + 0.97], row + 0.04, row + 0.96, color=colour, linewidth=0
            )
        before = delay


def _staircase(delays: Sequence[int], rows: int) -> tuple[list[float], list[float]]:
    """The corners of the border between read and unread, from the top left."""
    x, y = [0.0], [0.0]
    for row in range(rows):
        x += [float(delays[row])] * 2
        y += [float(row), row + 1.0]
    return x, y


def _draw_legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(color=_NEW, label="READ"),
        Line2D([], [], color=_WRITE, marker="o", linestyle="none", label="WRITE"),
        Patch(color=_SEEN, label="read before"),
        Patch(color=_UNREAD, label="not read yet"),
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8.5,
        labelcolor=_INK,
        handlelength=1.2,
        columnspacing=1.4,
    )
