"""`bench`: files, tables, mistakes, interruptions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.commands import Run
from tests.models import tiny_config

from proactivellm.bench import suites

TINY = ("--source", 8, "--target", 8, "--k", 2, "--repeats", 1, "--long", 0, "--steps", 5)


@pytest.fixture
def shape(tmp_path: Path) -> Path:
    """A folder with a configuration, and no more."""
    folder = tmp_path / "shape"
    folder.mkdir()
    tiny_config("qwen3").to_json_file(folder / "config.json")
    return folder


def load(out: Path) -> Any:
    return json.loads((out / "bench.json").read_text(encoding="utf-8"))


def test_a_shape_alone_and_in_sessions(run: Run, shape: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    chosen = ("alone", "sessions", "--sessions", "1,3", "--threads", 1)
    kind = ("--dtype", "bfloat16", "--accelerate", "graph")
    done = run("bench", "--model", shape, *chosen, *TINY, *kind, "--out", out)
    assert done.code == 0
    report = load(out)
    assert report["complete"] and list(report["suites"]) == ["alone", "sessions"]
    assert report["command"]["model"] == str(shape) and report["command"]["sessions"] == "1,3"
    assert report["model"]["dtype"] == "bfloat16" and report["machine"]["threads"] == 1
    assert report["suites"]["alone"]["short"]["runs"]["ours"]["forwards"] == 1 + 8
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "(b) separate caches" in done.out and "Sessions: drawn 8/8 wait-k:2" in done.out
    assert "alone 8/8: 4/4" in done.err


def test_a_model_with_a_tokenizer_reads_text(run: Run, model: str, tmp_path: Path) -> None:
    """Keys and values in int8: a byte for each number, and two for the scale of each head."""
    sizes = ("sessions", "--sessions", "2", "--kv", "int8", *TINY)
    done = run("bench", "--model", model, *sizes, "--out", tmp_path)
    workloads = load(tmp_path)["suites"]["sessions"]["workloads"]
    assert done.code == 0
    assert [w["name"] for w in workloads] == ["drawn 8/8 wait-k:2", "text wait-k:3"]
    config = tiny_config("qwen3")
    heads = 2 * config.num_hidden_layers * config.num_key_value_heads
    for workload in workloads:
        kept = workload["sessions"]["2"]["kv_bytes_per_entry"]
        assert kept == heads * (config.head_dim + 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("speed",), "suite 'speed': choose from alone"),
        (("--accelerate", "fast"), "accelerate 'fast': choose from none, graph, compile"),
        (("--model", "shape:6x256", "--kv", "fp8"), "--kv fp8: choose from none, int8"),
        (("--sessions", "1;2"), "sessions '1;2': give whole numbers joined by commas"),
        (("--units", "800"), "units '800': give two numbers"),
        (("--model", "shape:qwen"), "no shape 'qwen'"),
        (("--model", "shape:6x256", "--dtype", "int4"), "unknown dtype 'int4'"),
        (("--model", "nowhere"), "no model 'nowhere'"),
    ],
)
def test_mistakes(run: Run, arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run("bench", *arguments, "--out", tmp_path)
    assert message in done.error
    assert not (tmp_path / "bench.json").exists()


def test_a_folder_that_cannot_be_made(run: Run, shape: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("bench", "--model", shape, "--out", tmp_path / "file" / "out")
    assert str(tmp_path / "file") in done.error


def test_an_interruption_leaves_what_was_measured(
    run: Run, shape: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(bench: Any, result: dict[str, Any]) -> None:
        result["workloads"] = [{"name": "drawn", "sessions": {}}]
        raise KeyboardInterrupt

    monkeypatch.setattr(suites, "RUNS", {**suites.RUNS, "sessions": interrupted})
    threads = torch.get_num_threads()
    done = run("bench", "--model", shape, "--threads", threads + 1, *TINY, "--out", tmp_path)
    assert done.code == 130 and "interrupted: what was measured is in" in done.err
    report = load(tmp_path)
    assert not report["complete"] and list(report["suites"]) == ["alone", "sessions"]
    assert report["suites"]["alone"]["short"]["same_tokens_as_b"] is True
    assert torch.get_num_threads() == threads and "One stream" in done.out
