"""The READ/WRITE path of an instance as a picture. Needs the extra `plot` (matplotlib)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from proactivellm.report.figure import in_lines, new_figure, plain_text, save_figure, shorten
from proactivellm.report.looks import FAINT, GRID, HEAT, HELD, INK, NEW, SEEN, UNREAD, WRITE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL = 22  # characters of a word at most
_CELL, _STRIP, _TEXT = 0.5, 1.5, 0.064  # inches: a unit, numbers, a character of the reasons


class Strip(NamedTuple):
    """A number of the probes for each target word, drawn beside the path."""

    name: str  # with its unit
    held: Sequence[Sequence[float]]  # for each word, of the tokens that were held back before it
    written: Sequence[float]  # for each word, of the token that was written
    threshold: float | None = None  # where the decision turns, if it does on this number


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the model saw when it wrote each target word."""

    # Share of the source attention on each source unit; nothing where it is unknown.
    attention: Sequence[Sequence[float]]
    forced: Sequence[bool]  # whether the word was written because there was no choice
    strips: Sequence[Strip] = ()
    reasons: Sequence[str] = ()  # why each word was written when it was


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What stands above a picture, and in small letters beneath it."""

    title: str = ""
    below: str = ""


def read_write_path(
    source_units: Sequence[str],
    target_words: Sequence[str],
    delays: Sequence[int],
    path: str | Path,
    heading: Heading | None = None,
    evidence: Evidence | None = None,
) -> None:
    """Draws one instance as a staircase: a step right is a READ, a step down is a WRITE.

    Args:
        delays: for each target word, source units read when it was written; non-decreasing.
        path: picture to write; its ending is the format (.png, .svg, .pdf).
        evidence: of the decisions; without it cells tell only what was read when.

    Raises:
        ValueError: either side is empty, or the delays do not fit them.
        ImportError: matplotlib is not installed.
    """
    sides = source_units, target_words
    save_figure(path_figure(sides, delays, heading or Heading(), evidence), path)


def path_figure(
    sides: tuple[Sequence[str], Sequence[str]],
    delays: Sequence[int],
    heading: Heading,
    evidence: Evidence | None,
) -> "Figure":
    """The figure; `sides` are the source units and the target words."""
    columns, rows = len(sides[0]), len(sides[1])
    _check_delays(columns, rows, delays)
    evidence = evidence or Evidence(attention=(), forced=[False] * rows)
    longest = max(map(len, evidence.reasons), default=0)
    widths = [_CELL * max(columns, 6), *[_STRIP] * len(evidence.strips)]
    widths += [_TEXT * longest] if longest else []
    figure = new_figure(max(1.6 + sum(widths), 6.5), 2.0 + 0.36 * max(rows, 4))
    grid, *beside = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    _draw_cells(grid, columns, delays, evidence.attention)
    _draw_steps(grid, delays, evidence.forced)
    _name_sides(grid, sides)
    for axes, strip in zip(beside, evidence.strips, strict=False):
        _draw_strip(axes, strip, evidence.forced)
    if longest:
        _write_reasons(beside[-1], evidence.reasons)
    _draw_legend(figure, evidence, heading.below)
    if heading.title:
        figure.suptitle(in_lines(heading.title, figure, 12), color=INK, fontsize=12, **plain_text())
    return figure


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

    low, high = (np.array(to_rgb(colour)) for colour in HEAT)
    cells = np.empty((len(delays), columns, 3))
    cells[:] = to_rgb(UNREAD)
    before = 0
    for row, delay in enumerate(delays):
        cells[row, before:delay], cells[row, :before] = to_rgb(NEW), to_rgb(SEEN)
        if attention and len(attention[row]):
            share = np.clip(attention[row][:delay], 0, 1)[:, None] ** 0.6  # small ones are seen too
            cells[row, :delay] = low + (high - low) * share
        before = delay
    edges = range(columns + 1), range(len(delays) + 1)
    axes.pcolormesh(*edges, cells, edgecolors="white", linewidth=2)


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
    edge, face = (WRITE, "white") if forced else ("white", WRITE)
    return {**look, "markeredgecolor": edge, "markerfacecolor": face}


def _held_marker() -> dict[str, Any]:
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 5}
    return {**look, "markeredgecolor": HELD, "markerfacecolor": "white", "markeredgewidth": 1.2}


def _name_sides(axes: "Axes", sides: tuple[Sequence[str], Sequence[str]]) -> None:
    source, target = ([shorten(text, _LABEL) for text in side] for side in sides)
    style = plain_text()
    axes.set_xlim(0, len(source))
    axes.set_ylim(len(target), 0)
    axes.set_xticks([i + 0.5 for i in range(len(source))])
    axes.set_xticklabels(source, rotation=40, ha="left", rotation_mode="anchor", **style)
    axes.set_yticks([i + 0.5 for i in range(len(target))])
    axes.set_yticklabels(target, **style)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("source, READ →", color=FAINT, fontsize=9)
    axes.set_ylabel("target, WRITE ↓", color=FAINT, fontsize=9)
    axes.tick_params(length=0, colors=INK, labelsize=10)
    axes.spines[:].set_visible(False)


def _draw_strip(axes: "Axes", strip: Strip, forced: Sequence[bool]) -> None:
    """A dot for every probe of a word; what was held back is joined with what was written."""
    from matplotlib.ticker import MaxNLocator

    for row, (held, written) in enumerate(zip(strip.held, strip.written, strict=True)):
        y = row + 0.5
        axes.axhline(y, color=GRID, linewidth=0.6, zorder=1)
        if held:
            ends = [min([*held, written]), max([*held, written])]
            axes.plot(ends, [y, y], color=HELD, linewidth=1.2, zorder=2)
            axes.plot(held, [y] * len(held), zorder=3, **_held_marker())
        axes.plot([written], [y], zorder=4, **_write_marker(forced[row]))
    if strip.threshold is not None:
        axes.axvline(strip.threshold, color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=2)
    highest = max(
        [*strip.written, strip.threshold or 0.0, 1e-9, *map(max, filter(None, strip.held))]
    )
    axes.set_xlim(-0.07 * highest, 1.1 * highest)
    axes.set_ylim(len(strip.written), 0)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks([])
    axes.tick_params(labelsize=8, colors=INK, length=2)
    axes.set_xlabel(strip.name, fontsize=9, color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _write_reasons(axes: "Axes", reasons: Sequence[str]) -> None:
    for row, reason in enumerate(reasons):
        axes.text(0, row + 0.5, reason, va="center", fontsize=8, color=INK, **plain_text())
    axes.set_ylim(len(reasons), 0)
    axes.set_xlabel("why then", fontsize=9, color=INK, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _draw_legend(figure: "Figure", evidence: Evidence, below: str) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], label="WRITE", **_write_marker(False))]
    if any(evidence.forced):
        handles.append(Line2D([], [], label="WRITE, no choice left", **_write_marker(True)))
    if any(held for strip in evidence.strips for held in strip.held):
        handles.append(Line2D([], [], label="held back, READ instead", **_held_marker()))
    if any(len(row) for row in evidence.attention):
        handles += [Patch(color=HEAT[0], label="read"), Patch(color=HEAT[1], label="attended to")]
    else:
        handles += [Patch(color=NEW, label="READ"), Patch(color=SEEN, label="read before")]
    handles.append(Patch(color=UNREAD, label="not read yet"))
    if any(strip.threshold is not None for strip in evidence.strips):
        line: dict[str, Any] = {"color": INK, "linewidth": 1.1, "linestyle": (0, (4, 2))}
        handles.append(Line2D([], [], label="threshold", **line))
    look: dict[str, Any] = {"frameon": False, "fontsize": 8.5, "labelcolor": INK}
    look |= {
        "handlelength": 1.2,
        "columnspacing": 1.4,
        "ncols": min(len(handles), max(2, int(figure.get_figwidth() / 1.75))),
    }
    legend = figure.legend(handles=handles, loc="outside lower center", **look)
    if below:
        legend.set_title(in_lines(below, figure, 8))
        legend.get_title().set(color=FAINT, fontsize=8, multialignment="center", **plain_text())
