"""The quality-latency curve of some policies as a picture. `curve_page` is the one to click on.

Needs the extra `plot` (matplotlib).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proactivellm.report.figure import in_lines, new_figure, save_figure, shorten
from proactivellm.report.labels import Label, put_labels
from proactivellm.report.looks import FAINT, GRID, INK, Look, are_many, looks
from proactivellm.report.points import (
    LOWER_IS_BETTER,
    Row,
    caption,
    choose_quality,
    is_offline,
    points_by_family,
    setting,
    split_family,
    with_direction,
    with_unit,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL = 22  # characters of a setting at most
_LINE = 1.5  # points
Families = Mapping[str, Sequence[Row]]


def quality_latency_curve(
    scores: Sequence[Row],
    path: str | Path,
    quality: str | None = None,
    latency: str = "LAAL",
    about: str = "",
) -> None:
    """Draws quality against latency, one line per family of policies (the name before ':').

    `offline`, where it is not alone, is a level to compare with: it would stretch the axis. Where
    there are many arms, every policy has a panel of its own.

    Args:
        scores: what `metrics.score` returned, one object per point; points that lack either number
            are left out. Intervals `{metric}_ci` are drawn where present.
        path: picture to write; its ending is the format (.png, .svg, .pdf).
        quality: key of the vertical axis; the first of QUALITIES that the scores have if left out.
        latency: key of the horizontal axis.
        about: model and data, for the heading.

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
    save_figure(draw_curve(families, scores, (latency, quality), about), path)


def draw_curve(
    families: Families, scores: Sequence[Row], keys: tuple[str, str], about: str
) -> "Figure":
    """The figure of some families, with its labels in place; `keys` are those of both axes.

    All scores are for the headings.
    """
    levels = {name: rows for name, rows in families.items() if is_offline(name)}
    curves = {name: rows for name, rows in families.items() if name not in levels}
    if not curves:
        curves, levels = levels, {}
    panels = _panels(curves)
    figure = new_figure(7.4 if len(panels) == 1 else 4.6 * len(panels), 5.2)
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    styles = {name: Look(INK, "o") for name in curves} | looks(curves)
    for axes, (heading, names) in zip(all_axes, panels.items(), strict=True):
        for name in names:
            _draw_family(axes, name, curves[name], keys, styles[name])
        _draw_levels(axes, levels, keys)
        _finish(axes, heading, with_unit(keys[0], scores))
    all_axes[0].set_ylabel(with_direction(keys[1]), color=INK)
    _draw_legend(figure, all_axes, is_split=len(panels) > 1)
    heading = caption(scores, about)
    left_out = len(scores)  # at most: so that the final heading has room
    title = figure.suptitle(_heading(heading, left_out, figure), color=INK, fontsize=9)
    figure.draw_without_rendering()  # the layout is final now: labels look for places in it
    figure.set_layout_engine("none")
    left_out = 0
    for axes, names in zip(all_axes, panels.values(), strict=True):
        labels = [_labels(curves[name], keys, styles[name]) for name in names]
        ends = [label for each in labels for label in (each[0], *each[1:][-1:])]
        left_out += put_labels(axes, ends + [label for each in labels for label in each[1:-1]])
    title.set_text(_heading(heading, left_out, figure))
    return figure


def _heading(text: str, left_out: int, figure: "Figure") -> str:
    note = f"{left_out} points without a label" if left_out else ""
    return in_lines("; ".join(filter(None, [text, note])), figure)


def _panels(curves: Families) -> dict[str, list[str]]:
    """Names of the families in each panel, by its heading."""
    if not are_many(curves):
        return {"": list(curves)}
    panels: dict[str, list[str]] = {}
    for name in curves:
        panels.setdefault(split_family(name)[1], []).append(name)
    return panels


def _draw_family(
    axes: "Axes", name: str, rows: Sequence[Row], keys: tuple[str, str], look: Look
) -> None:
    (x, dx), (y, dy) = (
        ([row[key] for row in rows], [row.get(f"{key}_ci") or 0.0 for row in rows]) for key in keys
    )
    if any(dx + dy):
        style: dict[str, Any] = {"fmt": "none", "color": look.colour, "alpha": 0.35}
        axes.errorbar(x, y, yerr=dy, xerr=dx, capsize=0, linewidth=1, zorder=1.5, **style)
    line: dict[str, Any] = {"color": look.colour, "linewidth": _LINE, "marker": look.marker}
    line |= {"linestyle": (0, look.dash) if look.dash else "-", "markersize": 5}
    if look.hollow:
        line["markerfacecolor"] = "white"
    axes.plot(x, y, label=name, **line)


def _draw_levels(axes: "Axes", levels: Families, keys: tuple[str, str]) -> None:
    """Offline as a line across, with its interval; of many arms one band from worst to best."""
    latency, quality = keys
    choose = min if quality in LOWER_IS_BETTER else max
    best = {name: choose(rows, key=lambda row: row[quality]) for name, rows in levels.items()}
    line: dict[str, Any] = {"color": FAINT, "linewidth": 1.2, "zorder": 1}
    if are_many(best):
        ends = [row[quality] for row in best.values()]
        lags = sorted({_number(row[latency]) for row in best.values()})
        lag = lags[0] if len(lags) == 1 else f"{lags[0]} to {lags[-1]}"
        text = f"offline, all arms ({latency} {lag})"
        axes.axhspan(min(ends), max(ends), color=FAINT, alpha=0.18, linewidth=0, label=text)
        return
    for number, (name, row) in enumerate(best.items()):
        text = f"{name} ({latency} {_number(row[latency])})"
        dash = (0, ((5, 3), (1.5, 2), (8, 2, 2, 2))[number])
        axes.axhline(row[quality], linestyle=dash, label=text, **line)
        if (half := row.get(f"{quality}_ci")) and len(best) == 1:
            low, high = row[quality] - half, row[quality] + half
            axes.axhspan(low, high, color=FAINT, alpha=0.08, linewidth=0, zorder=0.5)


def _finish(axes: "Axes", heading: str, latency: str) -> None:
    axes.set_xlabel(latency, color=INK)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.1, 0.12)
    axes.spines[["top", "right"]].set_visible(False)
    if heading:
        axes.set_title(heading, color=INK, fontsize=10)


def _draw_legend(figure: "Figure", all_axes: "Sequence[Axes]", is_split: bool) -> None:
    """One entry a line; where every policy has its panel, one an arm."""
    entries: dict[str, Any] = {}
    for axes in all_axes:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            arm = split_family(text)[0] if is_split and not text.startswith("offline,") else ""
            entries.setdefault(arm or text, handle)
    widest = max(map(len, entries))
    columns = max(1, min(len(entries), int(figure.get_figwidth() * 72 / (5.2 * widest + 46))))
    look: dict[str, Any] = {"frameon": False, "fontsize": 9, "labelcolor": INK}
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns, **look)


def _labels(rows: Sequence[Row], keys: tuple[str, str], look: Look) -> list[Label]:
    return [
        (shorten(setting(row), _LABEL), (row[keys[0]], row[keys[1]]), look.colour) for row in rows
    ]


def _number(lag: float) -> str:
    return f"{lag:.{3 if lag < 1000 else 6}g}"  # ms without an exponent
