"""All suites end to end; what is measured is told, also where it was interrupted."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.bench.benches import tiny_bench

from proactivellm.bench import run
from proactivellm.bench.options import SUITES
from proactivellm.bench.report import draw, save, tables
from proactivellm.bench.run import new_report, run_suites


def show(report: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=200)
    for table in tables(report):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_suites(tmp_path: Path) -> None:
    bench = tiny_bench(long=16)
    report = new_report(bench, {"model": "tiny"})
    run_suites(bench, report, lambda: None)
    save(report, tmp_path / "bench.json")
    stored = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(report))
    assert stored["complete"] and tuple(stored["suites"]) == SUITES
    assert stored["machine"]["torch"] and stored["model"]["layers"] == 2
    draw(report, tmp_path / "bench.png")
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
    save(report, tmp_path / "bench.json")
    assert "tok/s" in show(report)
    draw(report, tmp_path / "bench.png")


def test_nothing_to_draw(tmp_path: Path) -> None:
    report = new_report(tiny_bench(), {})
    assert not show(report)
    with pytest.raises(ValueError, match="nothing was measured"):
        draw(report, tmp_path / "bench.png")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'proactivellm\[plot\]'"):
        draw(new_report(tiny_bench(), {}), tmp_path / "bench.png")


def test_every_suite_has_its_run() -> None:
    assert tuple(run.RUNS) == SUITES
