"""All suites end to end; what is measured is told, also where it was interrupted."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.bench.benches import tiny_bench
from tests.report.pictures import overlapping, shown_ticks

from proactivellm.bench import suites
from proactivellm.bench.scope import HERE, SUITES
from proactivellm.bench.suites import new_report, run_suites
from proactivellm.files.replace import write_json
from proactivellm.report.bench_picture import bench_figure, draw_bench
from proactivellm.report.bench_tables import bench_tables


def show(report: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=200)
    for table in bench_tables(report):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_suites(tmp_path: Path) -> None:
    bench = tiny_bench(long=16)
    report = new_report(bench, {"model": "tiny"})
    run_suites(bench, report, lambda: None)
    write_json(tmp_path / "bench.json", report)
    stored = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(report))
    assert stored["complete"] and tuple(stored["suites"]) == HERE
    assert stored["machine"]["torch"] and stored["model"]["layers"] == 2
    draw_bench(report, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    text = show(report)
    for number in ("12 units, 12 tokens, wait-3", "16 units", "drawn 12/12", "windowed", "p95: 2"):
        assert number in text
    rate = stored["suites"]["alone"]["short"]["runs"]["b"]["tokens_per_cpu_s"]
    assert f"{rate:.1f}" in text and "are equal: True" in text


@pytest.mark.parametrize("after", (1, 6, 14, 16))
def test_what_was_measured_before_an_interruption_stays(after: int, tmp_path: Path) -> None:
    bench = tiny_bench(long=8)
    calls = []

    def interrupt(*call: Any) -> None:
        calls.append(call)
        if len(calls) == after:
            raise KeyboardInterrupt

    object.__setattr__(bench, "progress", interrupt)
    report = new_report(bench, {})
    with pytest.raises(KeyboardInterrupt):
        run_suites(bench, report, lambda: None)
    assert not report["complete"]
    write_json(tmp_path / "bench.json", report)
    assert "tok/s" in show(report)
    draw_bench(report, tmp_path / "bench.png")


def test_nothing_to_draw_bench(tmp_path: Path) -> None:
    report = new_report(tiny_bench(), {})
    assert not show(report)
    with pytest.raises(ValueError, match="nothing was measured"):
        draw_bench(report, tmp_path / "bench.png")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install proactivellm\[plot\]"):
        draw_bench(new_report(tiny_bench(), {}), tmp_path / "bench.png")


def test_every_suite_has_its_run() -> None:
    assert tuple(suites.RUNS) == SUITES


def capacity() -> dict[str, Any]:
    """A report of many points, close together, over three powers of ten."""
    sessions = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 576, 640, 768, 1024]
    curve = [
        {"sessions": n, "latency_ms": {"p50": 9 + n, "p95": 13 + 2 * n, "p99": 14 + 3 * n}}
        for n in sessions
    ]
    result = {"curve": curve, "unit_ms": 400.0, "deadline_ms": 300.0}
    workload = {
        "name": "drawn 60/60",
        "sessions": {str(n): {"tokens_per_s": 90.0 + 20 * n} for n in sessions},
    }
    suites = {"capacity": result, "sessions": {"workloads": [workload]}}
    return {"command": {"model": "m"}, "machine": {"device_name": "cpu"}, "suites": suites}


def test_numbers_of_the_axes_and_the_legend_keep_clear() -> None:
    figure = bench_figure(capacity())
    figure.draw_without_rendering()
    assert len(figure.axes) == 2
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in shown_ticks(axes)]
        assert len(boxes) > 6 and not overlapping(boxes)
        legend = axes.get_legend()
        assert legend is not None
        box = legend.get_window_extent()
        assert not any(line.get_window_extent().overlaps(box) for line in axes.lines)
        assert not box.overlaps(axes.title.get_window_extent())


def test_marks_of_the_deadline() -> None:
    (axes, _) = reversed(bench_figure(capacity()).axes)
    names = axes.get_legend_handles_labels()[1]
    assert names == ["p50", "p95", "p99", "deadline, 300 ms"]
    assert axes.get_xlabel() == "sessions, a unit per 400 ms each"
