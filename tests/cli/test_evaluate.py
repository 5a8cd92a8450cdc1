"""`evaluate`: what is written and printed, and what an interruption leaves behind."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cli.commands import Forked, Run, shortened, write_lines
from tests.families import OBEYING, save_random

from proactivellm.output.log import read_log

WORDS = "Der Hund schläft auf dem Sofa und ein Mann putzt das Fenster".split()
NUM_LINES = 14
POLICIES = ("--policy", "offline", "--policy", "wait-k:2")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Options that name sources and targets."""
    sources = [" ".join(WORDS[i % 7 : 6 + i % 5]) for i in range(NUM_LINES)]
    targets = [" ".join(reversed(source.split())) for source in sources]
    source = write_lines(tmp_path / "source", *sources)
    target = write_lines(tmp_path / "target", *targets)
    return ("--source", str(source), "--target", str(target))


def test_proposals_are_no_other_run(
    run: Run, model: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    """They change forwards alone, so that a run may go on with them."""
    command = ("evaluate", "--model", model, *files, "--policy", "offline", "--out", tmp_path)
    assert run(*command, "--limit", 1).code == 0
    assert run(*command, "--limit", 2, "--speculate", model).code == 0
    first, second = read_log(tmp_path / "offline" / "instances.log")
    assert first.forwards >= len(first.token_delays)
    assert second.forwards < len(second.token_delays)


def test_what_is_of_a_cluster_needs_one(
    run: Run, files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ("evaluate", *files, "--policy", "offline", "--out", tmp_path / "out")
    assert (
        run(*command, "--workers", 2).error == "--workers is of a Ray cluster: give --ray as well"
    )
    told = "--device cuda:1: with --ray give cpu, or cuda: a GPU each"
    assert run(*command, "--ray", "--device", "cuda:1").error == told
    told = "evaluate --ray needs ray, which is not installed: pip install 'proactivellm[ray]'"
    assert run(*command, "--ray").error == told
    assert not (tmp_path / "out").exists()


def test_keys_and_values_in_int8_are_another_run(
    run: Run, model: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    command = ("evaluate", "--model", model, *files, "--policy", "offline", "--out", tmp_path)
    assert run(*command, "--limit", 1, "--kv", "int8").code == 0
    error = run(*command, "--limit", 2).error
    assert "holds another run (quantization was keys and values in int8, and is None now)" in error


def load_scores(out: Path) -> list[dict[str, Any]]:
    """The scores of a run, but for those that tell the time."""
    rows = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    for row in rows:  # how many have no value tells the time as well
        undefined = row.get("num_undefined", {})
        row["num_undefined"] = {key: undefined[key] for key in undefined if "ms" not in key}
    return [{key: row[key] for key in row if "ms" not in key} for row in rows]


def count_instances(out: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in out.glob("*/instances.log"))


def test_scores_table_and_curve(
    run: Run, model: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run("evaluate", "--model", model, *files, *POLICIES, "--out", out)
    assert done.code == 0 and f"offline: {NUM_LINES}/{NUM_LINES}" in done.err
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    offline, wait_k = load_scores(out)
    assert (offline["policy"], wait_k["policy"]) == ("offline", "wait-k:2")
    assert {"BLEU", "chrF", "AL", "LAAL", "AP", "DAL", "YAAL", "RCO", "AIL"} <= wait_k.keys()
    assert offline["RCO"] == 1 > wait_k["RCO"]
    for number in (f"{wait_k['LAAL']:.2f}", f"{wait_k['BLEU']:.1f}"):
        assert number in done.out
    table, _, left_out = done.out.partition("no room for: ")
    assert max(map(len, table.splitlines())) <= 100
    assert f"forwards ({out} has all)" in " ".join(left_out.split())

    log = out / "wait-k_2" / "instances.log"
    scored = json.loads(run("score", log, "--json").out)
    del wait_k["request"]
    del wait_k["num_undefined"]  # without what tells the time
    assert {key: scored[key] for key in wait_k} == wait_k
    assert f"{wait_k['LAAL']:.2f}" in run("score", log).out


def test_without_references(run: Run, model: str, files: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("evaluate", "--model", model, *files[:2], "--policy", "wait-k:1", "--out", out)
    (row,) = load_scores(out)
    assert done.code == 0 and row["BLEU"] is None and row["LAAL"] > 0
    assert "warning: curve.png was not drawn: no policy has both BLEU and LAAL" in done.err
    assert "warning: curve.html was not drawn" in done.err and (out / "table.md").exists()


def test_without_matplotlib(
    run: Run,
    model: str,
    files: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "out"
    done = run("evaluate", "--model", model, *files, *POLICIES, "--out", out)
    assert done.code == 0 and len(load_scores(out)) == 2 and "wait-k:2" in done.out
    (warning,) = (line for line in done.err.splitlines() if line.startswith("warning: "))
    assert "pip install proactivellm[plot]" in warning and not (out / "curve.png").exists()


def test_interrupted_and_continued(
    run: Run, model: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    """Ctrl-C in another process; what it finished is kept, and the scores come out the same."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = ("evaluate", "--model", model, *files, *POLICIES, "--lanes", "1", "--out")
    with Forked(*command, out) as process:
        while count_instances(out) < 3:
            assert process.code is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    finished = count_instances(out)
    assert process.code == 130 and 3 <= finished < 2 * NUM_LINES
    assert b"Traceback" not in err
    message = f"interrupted: finished instances stay in {out}; the same command continues"
    assert err.decode().splitlines()[-1].startswith(message)

    kept = (out / "offline" / "instances.log").read_text(encoding="utf-8").splitlines()
    assert run(*command, out).code == run(*command, whole).code == 0
    assert load_scores(out) == load_scores(whole)
    after = (out / "offline" / "instances.log").read_text(encoding="utf-8").splitlines()
    assert kept == after[:finished]  # not run again: elapsed times would differ


def test_cut_off_line_is_run_again(
    run: Run, model: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("evaluate", "--model", model, *files, "--policy", "wait-k:2", "--out", out)
    assert run(*command).code == 0
    before = load_scores(out)
    log = out / "wait-k_2" / "instances.log"
    log.write_bytes(log.read_bytes()[:-40])
    assert run(*command).code == 0
    assert load_scores(out) == before and log.read_bytes().count(b"\n") == NUM_LINES


def test_other_sources_do_not_mix(
    run: Run, model: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    command = ("evaluate", "--model", model, "--policy", "wait-k:1", "--out", tmp_path / "out")
    assert run(*command, *files).code == 0
    error = run(*command, "--source", files[3], "--target", files[1]).error
    assert "holds another run" in error and "choose another --out" in error


def test_window_is_part_of_the_run(
    run: Run, model: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("evaluate", "--model", model, *files, "--policy", "wait-k:1", "--out", out)
    window = ("--window", 8, "--sinks", 1)
    assert run(*command, *window).code == 0
    folder = out / "wait-k_1"
    dropped = sum(instance.dropped_units for instance in read_log(folder / "instances.log"))
    assert dropped > 0
    noted = json.loads((folder / "run.json").read_text())
    named = {"model", "dtype", "quantization", "rate_wpm", "window", "request"}
    assert {key: noted[key] for key in named} == {
        **{"model": str(Path(model).resolve()), "dtype": "float32", "quantization": None},
        **{"rate_wpm": 150.0, "window": {"source": 8, "target": 8, "sinks": 1}},
        "request": "wait-k:1",
    }
    assert run(*command, *window).code == 0  # all is there already
    error = run(*command).error
    assert "holds another run (window was {'source': 8" in error and "is None now)" in error
    assert "sinks" in run(*command, "--window", 16).error
    assert "rate_wpm was 150.0, and is 90.0 now" in run(*command, *window, "--rate", 90).error
    assert "dtype was float32" in run(*command, *window, "--dtype", "bfloat16").error
    (folder / "run.json").write_text("{")
    assert "run.json is broken" in run(*command, *window).error
    (folder / "run.json").unlink()
    assert "without run.json" in run(*command, *window).error


def test_what_cannot_be_streamed_is_told_at_the_end(run: Run, tmp_path: Path) -> None:
    """One source of five is longer than the model's 64 positions, under both policies."""
    model = shortened(save_random("gpt2", OBEYING["gpt2"], tmp_path / "model"))
    source = write_lines(tmp_path / "source", "ab", "cd ef", "ab " * 80, "ef", "ab cd")
    out = tmp_path / "out"
    command = ("evaluate", "--model", model, "--source", source, *POLICIES, "--out", out)
    done = run(*command)
    assert done.code == 2
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert [error.partition(": the stream has reached")[0] for error in errors] == [
        "error: offline: source 2",
        "error: wait-k:2: source 2",
    ]
    for folder in ("offline", "wait-k_2"):
        log = read_log(out / folder / "instances.log")
        assert [instance.index for instance in log] == [0, 1, 3, 4]
    assert not (out / "scores.json").exists()  # they would be of other sources

    kept = (out / "offline" / "instances.log").read_bytes()
    assert run(*command).code == 2  # tried again, and nothing else is
    assert (out / "offline" / "instances.log").read_bytes() == kept
    assert run(*command, "--policy", "wait-k:1", "--window", 32).code == 2  # other logs are there
    windowed = ("--policy", "wait-k:1", "--window", 32, "--out", tmp_path / "windowed")
    assert run(*command[:5], *windowed).code == 0
