"""What a benchmark measured, as tables for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from proactivellm.report.console import plain_table

Result = Mapping[str, Any]
QUANTILES = ("p50", "p95", "p99")
_MEMORY = ("rss", "peak_device")
_POINT = ("sessions", *(f"{q} ms" for q in QUANTILES))
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


def bench_tables(report: Result) -> Iterator[Table]:
    """A table per suite and workload, of what was measured, be the report complete or not."""
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
    if suites.get("serve", {}).get("curve"):
        yield _serving_table(suites["serve"])
    clips = suites.get("video", {}).get("clips", [])
    if whole := [clip for clip in clips if "stages" in clip]:
        yield _video_table(suites["video"], whole)
    for clip in clips:
        if clip.get("history"):
            yield _loop_table(clip)


def _alone_table(result: Result) -> Table:
    title = f"One stream: {result['source']} units, {result['target']} tokens, wait-{result['k']}"
    same = result.get("same_tokens_as_b")
    rows = [
        [run["name"], *_cells(run, ("forwards", "fed", "tokens_per_s", "tokens_per_cpu_s"))]
        + [_step(run), _ratio(result.get("times_faster_than", {}).get(name))]
        for name, run in result["runs"].items()
        if "skipped" not in run
    ]
    headings = ("", "forwards", "fed", "tok/s", "tok/CPU-s", "step p50/p95/p99 ms", "slower")
    caption = None if same is None else f"tokens of this library and of (b) are equal: {same}"
    return plain_table(title, headings, rows, caption)


def _sessions_table(workload: Result) -> Table:
    rows = [
        [n, *_cells(row, ("tokens_per_s", "tokens_per_cpu_s"))]
        + [_ratio(workload.get("ratios", {}).get(n)), _step(row), f"{row['floor_ms']:.2f}"]
        + [_size(row["kv_bytes_per_session"]), f"{row['held_over_used']:.3f}"]
        for n, row in workload["sessions"].items()
    ]
    headings = ("sessions", "tok/s", "tok/CPU-s", "x", "step p50/p95/p99 ms", "floor ms")
    return plain_table(f"Sessions: {workload['name']}", (*headings, "KV/session", "held/KV"), rows)


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
    return plain_table(f"A stream without end, window {result['window']}", headings, rows)


def _capacity_table(result: Result) -> Table:
    rows = [_point(point) for point in result["curve"]]
    title = (
        f"Unit to write, a unit per {result['unit_ms']:g} ms, deadline {result['deadline_ms']:g} ms"
    )
    return plain_table(title, (*_POINT, "late units"), rows, _sustained(result))


def _serving_table(result: Result) -> Table:
    rows = [
        [*_point(point), str(point["failed"])]
        + [_ratio(point["server_cores"]), _ratio(point["client_cores"])]
        for point in result["curve"]
    ]
    said = "recordings" if result["speech"] else f"a word per {result['unit_ms']:g} ms"
    title = f"Sent to written, over the network, {said}, deadline {result['deadline_ms']:g} ms"
    headings = (*_POINT, "late pieces", "failed", "server cores", "client cores")
    return plain_table(title, headings, rows, _sustained(result))


def _video_table(result: Result, clips: Sequence[Result]) -> Table:
    stages = list(clips[0]["stages"])
    rows = [
        [_clip(row), str(row["frames"]), f"{row['frames_per_s']:.1f}"]
        + [f"{100 * row['kept_share']:.1f} %", f"{row['ttft_ms']:.0f}", row["bottleneck"]]
        + [f"{row['stages'][stage]['busy_s']:.2f}" for stage in stages]
        for row in clips
    ]
    drops, sight = result["drop_tokens"] or "none", result["sight"] or {}
    seen = " ".join(f"{name} {value}" for name, value in sight.items() if value) or "all"
    title = f"Video: chunks of {result['chunk']}, dropped: {drops}, in sight: {seen}"
    title += f", look: {result['look']}" if "look" in result else ""
    headings = ("clip", "frames", "frames/s", "kept", "TTFT ms", "limited by")
    return plain_table(title, (*headings, *(f"{stage} s" for stage in stages)), rows)


def _loop_table(clip: Result) -> Table:
    rows = [
        [f"{row['video_s']:.0f}", *(_bytes(row[f"{name}_bytes"]) for name in _MEMORY)]
        + [str(row["entries"]), f"{row['prefill_ms']:.2f}", f"{row['prefill_cpu_ms']:.2f}"]
        for row in clip["history"]
    ]
    headings = ("video s", "memory", "at most on the device", "entries")
    return plain_table(_clip(clip), (*headings, "prefill ms", "CPU ms"), rows)


def _clip(row: Result) -> str:
    """The name of a clip, and for how long it was shown."""
    loop_s = row["loop_s"]
    return Path(row["clip"]).name + (f", {loop_s} s" if loop_s else "")


def _bytes(number: int | None) -> str:
    return "-" if number is None else _size(number)


def _point(point: Result) -> list[str]:
    latency = [f"{point['latency_ms'][q]:.1f}" for q in QUANTILES]
    return [str(point["sessions"]), *latency, str(point["late"])]


def _sustained(result: Result) -> str:
    most = " ".join(f"{n}: {num}" for n, num in result["sustained"].items())
    return f"sessions sustained: {most}"


def _cells(row: Result, keys: Sequence[str]) -> list[str]:
    return [str(row[key]) if isinstance(row[key], int) else f"{row[key]:.1f}" for key in keys]


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _step(row: Result) -> str:
    times = row.get("step_ms")
    return "/".join(f"{times[q]:.2f}" for q in QUANTILES) if times else "-"


def _size(num_bytes: float) -> str:
    unit, name = next((u, n) for u, n in _UNITS if num_bytes >= u or u == 1)
    return f"{num_bytes / unit:.1f} {name}"
