"""Two pictures: the quality-latency curve of some policies, and the READ/WRITE path of an instance.

Needs the extra `plot` (matplotlib). `curve_page` is the curve to click on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from proactivellm.metrics.figure import (
    COLOURS,
    FAINT,
    GRID,
    INK,
    MARKERS,
    new_figure,
    plain_text,
    save_figure,
    shorten,
)
from proactivellm.metrics.labels import Label, put_labels
from proactivellm.metrics.points import (
    LOWER_IS_BETTER,
    choose_quality,
    points_by_family,
    setting,
    with_direction,
    with_unit,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNREAD, _SEEN, _NEW, _WRITE = "#F4F5F7", "#CFE3F3", "#6AAEDB", "#D55E00"
_HEAT = ("#EAF2F9", "#08519C")  # no attention, all of it
_LABEL = 22  # characters of a word or a setting at most


def quality_latency_curve(
    scores: Sequence[Mapping[str, Any]],
    path: str | Path,
    quality: str | None = None,
    latency: str = "LAAL",
) -> None:
    """Draws quality against latency, one line per family of policies (the name before ':').

    `offline`, where it is not alone, is a level to compare with: it would stretch the axis.

    Args:
        scores: what `report.score` returned, one object per point; points that lack either number
            are left out. Intervals `{metric}_ci` are drawn where present.
        path: picture to write; its ending is the format (.png, .svg, .pdf).
        quality: key of the vertical axis; the first of QUALITIES that the scores have if left out.
        latency: key of the horizontal axis.

    Raises:
        ValueError: no point has both numbers.
        ImportError: matplotlib is not installed.
    """
    quality = quality or choose_quality(scores)
    families = points_by_family(scores, quality, latency)
    if not families:
        raise ValueError(
            f"no policy has both {quality} and {latency}: give scores with references, "
            "or name other metrics"
        )
    figure = new_figure(7.4, 4.9)
    axes = figure.add_subplot()
    level = families.pop("offline", None) if len(families) > 1 else None
    ends: list[Label] = []
    between: list[Label] = []
    for number, (family, rows) in enumerate(families.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        x, y = [row[latency] for row in rows], [row[quality] for row in rows]
        axes.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.5, label=family)
        _draw_intervals(axes, rows, (latency, quality), colour)
        labels = [(setting(row), (row[latency], row[quality]), colour) for row in rows]
        ends += [labels.pop(0), *labels[-1:]]
        between += labels[:-1]
    if level:
        _draw_level(axes, level, latency, quality)
    _finish_curve(figure, axes, (with_unit(latency, scores), with_direction(quality)))
    figure.draw_without_rendering()  # the layout is final now: labels look for places in it
    put_labels(axes, [*ends, *between])
    save_figure(figure, path)


class Bars(NamedTuple):
    """A number for each target word, drawn as a bar beside it.

    Attributes:
        name: with its unit.
        values: one for each word.
        threshold: where the decision turns, if it does on this number.
    """

    name: str
    values: Sequence[float]
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the model saw when it wrote each target word.

    Attributes:
        attention: share of the source attention on each source unit; nothing where it is unknown.
        forced: whether the word was written because there was no choice.
        bars: further numbers.
    """

    attention: Sequence[Sequence[float]]
    forced: Sequence[bool]
    bars: Sequence[Bars] = ()


def read_write_path(
    source_units: Sequence[str],
    target_words: Sequence[str],
    delays: Sequence[int],
    path: str | Path,
    title: str = "",
    evidence: Evidence | None = None,
) -> None:
    """Draws one instance as a staircase: a step right is a READ, a step down is a WRITE.

    Args:
        source_units: the units of the source as text, from left to right.
        target_words: the words that were written, from top to bottom.
        delays: for each target word, source units read when it was written; non-decreasing.
        path: picture to write; its ending is the format (.png, .svg, .pdf).
        title: heading; empty for none.
        evidence: of the decisions; without it cells tell only what was read when.

    Raises:
        ValueError: either side is empty, or the delays do not fit them.
        ImportError: matplotlib is not installed.
    """
    _check_delays(len(source_units), len(target_words), delays)
    columns, rows = len(source_units), len(target_words)
    bars = evidence.bars if evidence else ()
    width, bar_width = 0.5 * max(columns, 6), 1.4
    width_all = max(1.6 + width + bar_width * len(bars), 6.5 if evidence else 0)
    figure = new_figure(width_all, 1.5 + 0.36 * max(rows, 4))
    ratios = [width, *(bar_width for _ in bars)]
    axes, *beside = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    style = plain_text()
    _draw_cells(axes, columns, delays, evidence.attention if evidence else ())
    _draw_steps(axes, delays, evidence.forced if evidence else [False] * rows)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    source, target = ([shorten(t, _LABEL) for t in side] for side in (source_units, target_words))
    axes.set_xticks([i + 0.5 for i in range(columns)])
    axes.set_xticklabels(source, rotation=40, ha="left", rotation_mode="anchor", **style)
    axes.set_yticks([i + 0.5 for i in range(rows)])
    axes.set_yticklabels(target, **style)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, colors=INK, labelsize=10)
    axes.spines[:].set_visible(False)
    for place, numbers in zip(beside, bars, strict=True):
        _draw_bars(place, numbers)
    _draw_legend(figure, evidence)
    if title:
        figure.suptitle(_wrapped(title, figure), color=INK, fontsize=11, **style)
    save_figure(figure, path)


def _draw_intervals(
    axes: "Axes", rows: Sequence[Mapping[str, Any]], keys: tuple[str, str], colour: str
) -> None:
    (x, dx), (y, dy) = (
        ([row[key] for row in rows], [row.get(f"{key}_ci") or 0.0 for row in rows]) for key in keys
    )
    if any(dx + dy):
        look: dict[str, Any] = {"fmt": "none", "color": colour, "alpha": 0.45, "capsize": 2}
        axes.errorbar(x, y, yerr=dy, xerr=dx, **look)


def _draw_level(
    axes: "Axes", level: Sequence[Mapping[str, Any]], latency: str, quality: str
) -> None:
    choose = min if quality in LOWER_IS_BETTER else max
    best = choose(level, key=lambda row: row[quality])
    look: dict[str, Any] = {"color": FAINT, "linewidth": 1.2, "linestyle": (0, (5, 3))}
    lag = f"{best[latency]:.{3 if best[latency] < 1000 else 6}g}"  # ms without an exponent
    axes.axhline(best[quality], zorder=1, label=f"offline ({latency} {lag})", **look)


def _finish_curve(figure: "Figure", axes: "Axes", headings: tuple[str, str]) -> None:
    axes.set_xlabel(headings[0], color=INK)
    axes.set_ylabel(headings[1], color=INK)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.1, 0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=INK)


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


def _draw_cells(
    axes: "Axes", columns: int, delays: Sequence[int], attention: Sequence[Sequence[float]]
) -> None:
    """A row per word: attention on what was read, where it is known; else what was read when."""
    import numpy as np
    from matplotlib.colors import to_rgb

    low, high = (np.array(to_rgb(colour)) for colour in _HEAT)
    cells = np.empty((len(delays), columns, 3))
    cells[:] = to_rgb(_UNREAD)
    before = 0
    for row, delay in enumerate(delays):
        cells[row, before:delay], cells[row, :before] = to_rgb(_NEW), to_rgb(_SEEN)
        if attention and len(attention[row]):
            share = np.clip(attention[row][:delay], 0, 1)[:, None] ** 0.6  # small ones are seen too
            cells[row, :delay] = low + (high - low) * share
        before = delay
    axes.pcolormesh(
        range(columns + 1), range(len(delays) + 1), cells, edgecolors="white", linewidth=2
    )


def _draw_steps(axes: "Axes", delays: Sequence[int], forced: Sequence[bool]) -> None:
    """The border between read and unread, and each WRITE in the last unit that it had seen."""
    x, y = [0.0], [0.0]
    for row, delay in enumerate(delays):
        x += [float(delay)] * 2
        y += [float(row), row + 1.0]
    axes.plot(x, y, color=INK, linewidth=1.8, solid_joinstyle="miter", zorder=3, clip_on=False)
    for row, delay in enumerate(delays):
        axes.plot([delay - 0.5], [row + 0.5], zorder=4, **_write_marker(forced[row]))


def _write_marker(forced: bool) -> dict[str, Any]:
    look: dict[str, Any] = {"linestyle": "none", "marker": "D" if forced else "o"}
    look |= {"markersize": 5.5 if forced else 7, "markeredgewidth": 1.6 if forced else 0.7}
    edge, face = (_WRITE, "white") if forced else ("white", _WRITE)
    return {**look, "markeredgecolor": edge, "markerfacecolor": face}


def _draw_bars(axes: "Axes", bars: Bars) -> None:
    rows, right = len(bars.values), axes.get_yaxis_transform()
    small: dict[str, Any] = {"fontsize": 8, "color": INK}
    axes.barh([row + 0.5 for row in range(rows)], bars.values, height=0.62, color="#B9BEC6")
    for row, value in enumerate(bars.values):
        place = (1.0, row + 0.5)
        axes.text(*place, f"{value:.2f}", transform=right, ha="right", va="center", **small)
    if bars.threshold is not None:
        axes.axvline(bars.threshold, color=_WRITE, linewidth=1.2)
    axes.set_xlim(0, 1.55 * max([*bars.values, bars.threshold or 0.0, 1e-9]))
    axes.set_ylim(rows, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(bars.name, fontsize=8.5, color=INK)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(GRID)


def _draw_legend(figure: "Figure", evidence: Evidence | None) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], label="WRITE", **_write_marker(False))]
    if evidence and any(evidence.forced):
        handles.append(Line2D([], [], label="WRITE, no choice left", **_write_marker(True)))
    if evidence and any(len(row) for row in evidence.attention):
        handles += [Patch(color=_HEAT[0], label="read"), Patch(color=_HEAT[1], label="attended to")]
    else:
        handles += [Patch(color=_NEW, label="READ"), Patch(color=_SEEN, label="read before")]
    handles.append(Patch(color=_UNREAD, label="not read yet"))
    if evidence and any(bars.threshold is not None for bars in evidence.bars):
        handles.append(Line2D([], [], color=_WRITE, linewidth=1.2, label="threshold"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        handlelength=1.2,
        columnspacing=1.4,
    )


def _wrapped(title: str, figure: "Figure") -> str:
    """A heading in lines that fit the width of the picture."""
    per_line = int(figure.get_figwidth() * 9)
    return "\n".join(title[i : i + per_line] for i in range(0, len(title), per_line))
