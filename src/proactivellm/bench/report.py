"""What a benchmark leaves behind: bench.json, a picture, tables for the terminal."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from proactivellm.files.replace import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Result = Mapping[str, Any]
_COLOURS = {"p50": "#0072B2", "p95": "#E69F00", "p99": "#D55E00"}  # Okabe and Ito
_BAR, _GRID, _LIMIT = "#0072B2", "#D9DDE3", "#333333"
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


def save(report: Result, path: Path) -> None:
    """Writes the report as JSON.

    Args:
        report: of `run.run_suites`.
        path: the file; it is replaced.
    """
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def tables(report: Result) -> Iterator[Table]:
    """A table per suite and workload, of what was measured.

    Args:
        report: complete or not.

    Yields:
        rich tables.
    """
    suites = report["suites"]
    for name in ("short", "long"):
        if "runs" in suites.get("alone", {}).get(name, {}):
            yield _alone_table(suites["alone"][name])
    for workload in suites.get("sessions", {}).get("workloads", []):
        yield _sessions_table(workload)
    if "windowed" in suites.get("window", {}):
        yield _window_table(suites["window"])
    if suites.get("capacity", {}).get("curve"):
        yield _capacity_table(suites["capacity"])


def draw(report: Result, path: Path) -> None:
    """Draws a panel per suite.

    Args:
        report: complete or not.
        path: picture to write; its ending is the format (.png, .svg, .pdf).

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is nothing to draw.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib, which is not installed: pip install 'proactivellm[plot]'"
        ) from error
    suites = report["suites"]
    panels = [
        (panel, suites[name])
        for name, key, panel in (
            ("alone", "short", _draw_alone),
            ("sessions", "workloads", _draw_sessions),
            ("window", "windowed", _draw_window),
            ("capacity", "curve", _draw_capacity),
        )
        if suites.get(name, {}).get(key)
    ]
    if not panels:
        raise ValueError("nothing was measured")
    rows, columns = -(-len(panels) // 2), min(len(panels), 2)
    figure = Figure(figsize=(5.6 * columns, 3.8 * rows), layout="constrained")
    figure.suptitle(f"{report['command'].get('model')} on {report['machine']['device_name']}")
    for place, (panel, result) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        panel(axes, result)
        axes.grid(color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as new:
        figure.savefig(new, dpi=150)


def _alone_table(result: Result) -> Table:
    title = f"One stream: {result['source']} units, {result['target']} tokens, wait-{result['k']}"
    same = result.get("same_tokens_as_b")
    rows = [
        [run["name"], *_cells(run, ("forwards", "fed", "tokens_per_s", "tokens_per_cpu_s"))]
        + [_step(run), _ratio(result.get("times_faster_than", {}).get(name))]
        for name, run in result["runs"].items()
        if "skipped" not in run
    ]
    headings = ("", "forwards", "fed", "tok/s", "tok/CPU-s", "step p50/p95/p99 ms", "times slower")
    caption = None if same is None else f"tokens of this library and of (b) are equal: {same}"
    return _table(title, headings, rows, caption)


def _sessions_table(workload: Result) -> Table:
    rows = [
        [n, *_cells(row, ("tokens_per_s", "tokens_per_cpu_s"))]
        + [_ratio(workload.get("ratios", {}).get(n)), _step(row), f"{row['floor_ms']:.2f}"]
        + [_size(row["kv_bytes_per_session"]), f"{row['held_over_used']:.3f}"]
        for n, row in workload["sessions"].items()
    ]
    headings = ("sessions", "tok/s", "tok/CPU-s", "x", "step p50/p95/p99 ms", "floor ms")
    return _table(f"Sessions: {workload['name']}", (*headings, "KV/session", "held/KV"), rows)


def _window_table(result: Result) -> Table:
    rows = []
    for name in ("windowed", "unbounded"):
        for place in ("near", "far") if "near" in result.get(name, {}) else ():
            row = result[name][place]
            times = [f"{row['mean_ms']:.2f}", f"{row['cpu_ms']:.2f}", _step(row)]
            ratio = result[name]["far_over_near"]["mean_ms"] if place == "far" else None
            held = _size(row["held_bytes"])
            rows.append([name, str(row["units"]), *times, _ratio(ratio), held])
    headings = ("", "units", "mean ms", "CPU ms", "step p50/p95/p99 ms", "x", "KV held")
    return _table(f"A stream without end, window {result['window']}", headings, rows)


def _capacity_table(result: Result) -> Table:
    rows = [
        [str(p["sessions"]), *(f"{p['latency_ms'][q]:.1f}" for q in _COLOURS), str(p["late"])]
        for p in result["curve"]
    ]
    title = (
        f"Unit to write, a unit per {result['unit_ms']:g} ms, deadline {result['deadline_ms']:g} ms"
    )
    most = " ".join(f"{n}: {num}" for n, num in result["sustained"].items())
    headings = ("sessions", *(f"{q} ms" for q in _COLOURS), "late units")
    return _table(title, headings, rows, f"sessions sustained: {most}")


def _table(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str | None = None
) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _cells(row: Result, keys: Sequence[str]) -> list[str]:
    return [str(row[key]) if isinstance(row[key], int) else f"{row[key]:.1f}" for key in keys]


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _step(row: Result) -> str:
    times = row.get("step_ms")
    return "/".join(f"{times[q]:.2f}" for q in _COLOURS) if times else "-"


def _size(num_bytes: float) -> str:
    unit, name = next((u, n) for u, n in _UNITS if num_bytes >= u or u == 1)
    return f"{num_bytes / unit:.1f} {name}"


def _draw_alone(axes: "Axes", result: Result) -> None:
    runs = [run for run in result["short"]["runs"].values() if "skipped" not in run]
    bars = axes.barh([r["name"] for r in runs], [r["tokens_per_cpu_s"] for r in runs], color=_BAR)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("tokens per CPU second")
    axes.set_title("One stream")


def _draw_sessions(axes: "Axes", result: Result) -> None:
    for workload in result["workloads"]:
        rows = workload["sessions"]
        x, y = [int(n) for n in rows], [row["tokens_per_s"] for row in rows.values()]
        axes.plot(x, y, marker="o", label=workload["name"])
    _logarithmic(axes)
    axes.set_xlabel("sessions")
    axes.set_ylabel("tokens per second, together")
    axes.set_title("Sessions at once")
    axes.legend(frameon=False)


def _draw_window(axes: "Axes", result: Result) -> None:
    for name in ("windowed", "unbounded"):
        rows = [result.get(name, {}).get(place) for place in ("near", "far")]
        if all(rows):
            axes.plot(
                [row["units"] for row in rows if row],
                [row["mean_ms"] for row in rows if row],
                marker="o",
                label=name,
            )
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    axes.set_xlabel("units read")
    axes.set_ylabel("mean step, ms")
    axes.set_title("A stream without end")
    axes.legend(frameon=False)


def _logarithmic(axes: "Axes") -> None:
    """Doublings to the right, powers of ten upwards, both as plain numbers."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")


def _draw_capacity(axes: "Axes", result: Result) -> None:
    x = [point["sessions"] for point in result["curve"]]
    for name, colour in _COLOURS.items():
        y = [point["latency_ms"][name] for point in result["curve"]]
        axes.plot(x, y, marker="o", color=colour, label=name)
    axes.axhline(result["deadline_ms"], color=_LIMIT, linestyle="--", label="deadline")
    _logarithmic(axes)
    axes.set_xlabel("sessions")
    axes.set_ylabel("unit to write, ms")
    axes.set_title("Capacity")
    axes.legend(frameon=False)
