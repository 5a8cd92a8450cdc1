"""What a benchmark measured, as a picture with a panel per suite. Needs the extra `plot`."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proactivellm.report.bench_tables import QUANTILES, Result
from proactivellm.report.figure import new_figure, save_figure
from proactivellm.report.looks import BLUE, COLOURS, GRID, INK, MARKERS, ORANGE, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Panel = Callable[["Axes", Result], None]


def draw_bench(report: Result, path: str | Path) -> None:
    """Draws what was measured, be the report of `bench.suites` complete or not.

    The ending of `path` is the format (.png, .svg, .pdf).

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is nothing to draw.
    """
    save_figure(bench_figure(report), path)


def bench_figure(report: Result) -> "Figure":
    """The figure; raises as `draw_bench`."""
    panels = list(_panels(report["suites"]))
    rows, columns = -(-len(panels) // 2), min(len(panels), 2)
    figure = new_figure(5.6 * max(columns, 1), 4.1 * max(rows, 1))
    if not panels:
        raise ValueError("nothing was measured")
    figure.suptitle(f"{report['command'].get('model')} on {report['machine']['device_name']}")
    for place, (heading, panel, result) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        panel(axes, result)
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        _, names = axes.get_legend_handles_labels()
        axes.set_title(heading, pad=24 if names else 6, fontsize=11)
        if names:  # between the title and the panel, where no line can run
            above: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.995)}
            axes.legend(**above, ncols=len(names), frameon=False, fontsize=8.5, columnspacing=1.2)
    return figure


def _panels(suites: Result) -> Iterator[tuple[str, _Panel, Result]]:
    for name, key, heading, panel in (
        ("alone", "short", "One stream", _draw_alone),
        ("sessions", "workloads", "Sessions at once", _draw_sessions),
        ("window", "windowed", "A stream without end", _draw_window),
        ("capacity", "curve", "Capacity", _draw_capacity),
        ("serve", "curve", "Sessions over the network", _draw_capacity),
    ):
        if suites.get(name, {}).get(key):
            yield heading, panel, suites[name]


def _draw_alone(axes: "Axes", result: Result) -> None:
    runs = [run for run in result["short"]["runs"].values() if "skipped" not in run]
    bars = axes.barh([r["name"] for r in runs], [r["tokens_per_cpu_s"] for r in runs], color=BLUE)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("tokens per CPU second")


def _draw_sessions(axes: "Axes", result: Result) -> None:
    for workload, colour, marker in zip(result["workloads"], COLOURS, MARKERS, strict=False):
        rows = workload["sessions"]
        x, y = [int(n) for n in rows], [row["tokens_per_s"] for row in rows.values()]
        axes.plot(x, y, marker=marker, color=colour, label=workload["name"])
    _set_logarithmic(axes, [int(n) for each in result["workloads"] for n in each["sessions"]])
    axes.set_xlabel("sessions")
    axes.set_ylabel("tokens per second, together")


def _draw_window(axes: "Axes", result: Result) -> None:
    for name, colour, marker in zip(("windowed", "unbounded"), COLOURS, MARKERS, strict=False):
        rows = [result.get(name, {}).get(place) for place in ("near", "far")]
        if all(rows):
            x, y = [row["units"] for row in rows], [row["mean_ms"] for row in rows]
            axes.plot(x, y, marker=marker, color=colour, label=name)
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    axes.set_xlabel("units read")
    axes.set_ylabel("mean step, ms")


def _draw_capacity(axes: "Axes", result: Result) -> None:
    x = [point["sessions"] for point in result["curve"]]
    for name, colour, marker in zip(QUANTILES, (BLUE, ORANGE, VERMILION), MARKERS, strict=False):
        y = [point["latency_ms"][name] for point in result["curve"]]
        axes.plot(x, y, marker=marker, color=colour, label=name)
    deadline = result["deadline_ms"]
    axes.axhline(deadline, color=INK, linestyle="--", label=f"deadline, {deadline:g} ms")
    _set_logarithmic(axes, x)
    axes.set_xlabel(f"sessions, a unit per {result['unit_ms']:g} ms each")
    axes.set_ylabel("unit to write, ms")


def _set_logarithmic(axes: "Axes", places: Iterable[int]) -> None:
    """Doublings to the right, 1-2-5 upwards, as plain numbers that leave each other room."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_apart(sorted(set(places)))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")


def _apart(values: list[int]) -> list[int]:
    """Those of the numbers that are at least 1.8 times the one before, so that labels fit."""
    kept: list[int] = []
    for value in values:
        if not kept or value >= 1.8 * kept[-1]:
            kept.append(value)
    return kept
