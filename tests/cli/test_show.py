"""`show`: from a text, a file, a log and saved traces; pictures; and what it says of mistakes."""

import json
from pathlib import Path

import pytest
from tests.cli.commands import Run, write_lines

from proactivellm.decisions.trace import read_traces
from proactivellm.output.log import read_log

LINES = ("Der Hund schläft auf dem Sofa", "Ein Mann putzt das Fenster", "Die Katze sieht zu")
TINY = ("--policy", "wait-k:2")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "source", *LINES)


@pytest.fixture
def folder(run: Run, model: str, source: Path, tmp_path: Path) -> Path:
    """An evaluation of two policies."""
    out = tmp_path / "out"
    policies = ("--policy", "wait-k:1", "--policy", "entropy:3.0")
    assert run("evaluate", "--model", model, "--source", source, *policies, "--out", out).code == 0
    return out


def test_a_text(run: Run, model: str, tmp_path: Path) -> None:
    json_file, page = tmp_path / "t.json", tmp_path / "t.html"
    files = ("--json", json_file, "--out", page)
    done = run("show", "--model", model, *TINY, "--source", LINES[0], *files)
    assert done.code == 0 and done.err == f"written: {page}, {json_file}\n"
    lines = done.out.splitlines()
    assert (
        lines[0].rstrip() == "0: wait-k 2" and max(map(len, lines)) <= 80 and "\x1b" not in done.out
    )
    (trace,) = read_traces(json_file)
    assert trace.source == LINES[0].split() and trace.model == model and trace.words
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")

    again = run("show", json_file, "--out", tmp_path / "t.png")  # without a model
    assert again.out == done.out and (tmp_path / "t.png").stat().st_size > 5000


def test_lines_of_a_file(run: Run, model: str, source: Path, tmp_path: Path) -> None:
    command = ("show", "--model", model, *TINY, "--source-file", source)
    done = run(*command, "--index", 2, "--index", 0, "--json", tmp_path / "t.json")
    assert [trace.index for trace in read_traces(tmp_path / "t.json")] == [2, 0]
    assert "2: wait-k 2" in done.out and "0: wait-k 2" in done.out
    assert "has no index 3: it has 0 to 2" in run(*command, "--index", 3).error
    several = run(*command, "--index", 0, "--index", 1, "--out", tmp_path / "t.png")
    assert "holds one instance, not 2; give .html" in several.error
    assert "ends in .png, .svg, .pdf or .html" in run(*command, "--out", tmp_path / "t.txt").error


def test_an_instance_of_a_log(run: Run, folder: Path, tmp_path: Path) -> None:
    log = folder / "entropy_3.0" / "instances.log"
    told = f"written: {tmp_path / 't.json'}\n"
    for place in ((folder, "--policy", "entropy:3.0"), (log.parent,), (log,)):
        done = run("show", *place, "--index", 1, "--json", tmp_path / "t.json")
        assert done.code == 0 and done.err == told
        (trace,), instance = read_traces(tmp_path / "t.json"), read_log(log)[1]
        assert (trace.prediction, trace.delays) == (instance.prediction, instance.delays)
        assert trace.policy == instance.policy and trace.threshold == 3.0
        assert trace.request == "entropy:3.0"
    other = run("show", log, "--policy", "offline", "--json", tmp_path / "t.json")
    assert other.err == told and read_traces(tmp_path / "t.json")[0].policy == "offline"


def test_a_log_that_is_not_reproduced(run: Run, folder: Path) -> None:
    log = folder / "wait-k_1" / "instances.log"
    first, *rest = log.read_text(encoding="utf-8").splitlines()
    record = json.loads(first)
    record["prediction"] = " ".join("x" for _ in record["delays"])
    write_lines(log, json.dumps(record), *rest)
    done = run("show", log)
    assert done.code == 0 and "warning: instance 0 came out otherwise than in the log" in done.err


def test_mistakes(run: Run, folder: Path, tmp_path: Path) -> None:
    log = folder / "wait-k_1" / "instances.log"
    assert "has no index 9: it has 0 to 2" in run("show", log, "--index", 9).error
    assert "name one with --policy: entropy:3.0, wait-k:1" in run("show", folder).error
    assert "give exactly one of LOG, --source" in run("show").error
    assert "give exactly one of LOG, --source" in run("show", log, "--source", "x").error
    assert "unknown policy" in run("show", "--source", "x", "--policy", "wait").error
    assert "no such file" in run("show", tmp_path / "nowhere").error
    run_file = log.with_name("run.json")
    facts = json.loads(run_file.read_text(encoding="utf-8"))
    run_file.write_text(json.dumps({**facts, "model": "./gone"}), encoding="utf-8")
    error = run("show", log).error
    assert "the model of" in error and "no model './gone'" in error and "--model" in error
    run_file.unlink()
    assert "no run.json beside it that names its model: give --model" in run("show", log).error
    assert run("show", log, "--model", facts["model"]).code == 0
