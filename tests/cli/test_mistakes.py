"""Bad input: one line that names the value and the remedy, exit code 2, or a defined behaviour."""

from pathlib import Path

import pytest
from tests.cli.commands import Run, write_lines
from tests.models import tiny_model

from proactivellm.cli import models, stream
from proactivellm.output.log import read_log


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "text.de", "Der Hund schläft", "Ein Mann")


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("wait-kk:3", "unknown policy: 'wait-kk'; did you mean 'wait-k'?"),
        ("entropy:treshold=1", "unknown key of entropy: 'treshold'; did you mean 'threshold'?"),
        ("confidence:1.5", "policy 'confidence:1.5': threshold"),
        ("entropy:-1", "policy 'entropy:-1': threshold"),
        ("wait-k:0", "policy 'wait-k:0': k"),
        ("wait-k:three", "policy 'wait-k:three': k"),
        ("entropy:threshold=1,min_lag=5,max_lag=2", "min_lag=5 is above max_lag=2"),
        ("fixed:trace=/nowhere", "/nowhere"),
        ("", "unknown policy: ''"),
    ],
)
@pytest.mark.parametrize("command", ["stream", "evaluate"])
def test_policy(
    run: Run, model: str, text: Path, tmp_path: Path, command: str, policy: str, told: str
) -> None:
    data = (
        ("--input", text) if command == "stream" else ("--source", text, "--out", tmp_path / "out")
    )
    assert told in run(command, "--model", model, *data, "--policy", policy).error


def test_files(run: Run, model: str, text: Path, tmp_path: Path) -> None:
    missing, folder = tmp_path / "missing", tmp_path / "folder"
    folder.mkdir()
    stream = ("stream", "--model", model)
    not_there = "No such file or directory"
    assert run(*stream, "--input", missing).error == f"{missing}: {not_there}: check the path"
    error = run(*stream, "--input", folder).error
    assert error.startswith(f"{folder}: a folder without pictures (") and "give a file" in error
    log = missing / "log"
    error = run(*stream, "--input", text, "--log", log).error
    assert error == f"{log}: {not_there}: there is no folder {missing}: make it, or check the path"
    assert run("score", missing).error == f"{missing}: no such file"
    assert run("score", text).error.startswith(f"{text}: line 1: not JSON")
    assert run("train", missing, "--out", folder).error == f"{missing}: no such file"
    evaluate = ("evaluate", "--model", model, "--policy", "wait-k:1")
    error = run(*evaluate, "--source", missing, "--out", folder).error
    assert error.startswith(f"cannot read '{missing}': No such file")
    error = run(*evaluate, "--source", text, "--out", text).error
    assert error.startswith(f"{text}")


def test_not_utf8(run: Run, model: str, tmp_path: Path) -> None:
    """Lines before it were written already; it ends the stream."""
    path = tmp_path / "latin1.de"
    path.write_bytes("Der Hund\nschläft\n".encode("latin-1"))
    done = run("stream", "--model", model, "--input", path)
    assert done.code == 2 and done.out.count("\n") == 2
    assert done.err.startswith(f"error: {path}, line 2: 0xe4 is not UTF-8")
    assert "iconv" in done.err and done.err.count("\n") == 1
    out = tmp_path / "out"
    error = run(
        *("evaluate", "--model", model, "--policy", "offline"), "--source", path, "--out", out
    ).error
    assert error.startswith(f"{path}, line 2: 0xe4 at byte offset 13 is not UTF-8")
    assert not out.exists()


def test_lengths_differ(
    run: Run, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_model(*_: object, **__: object) -> None:
        raise AssertionError("a model is loaded before the files are compared")

    monkeypatch.setattr(models, "load_model", load_model)
    target = write_lines(tmp_path / "text.en", "one", "two", "three")
    data = ("--source", text, "--target", target)
    for command in (("evaluate", "--policy", "offline", "--out", tmp_path), ("calibrate",)):
        error = run(*command, *data).error
        assert error.startswith("the source has 2 lines but the target has 3")


def test_models(run: Run, text: Path, tmp_path: Path) -> None:
    stream = ("stream", "--input", text, "--model")
    assert "no model 'nothing': not a folder" in run(*stream, "nothing").error
    folder = tmp_path / "bare"
    tiny_model("qwen3").save_pretrained(folder)
    error = run(*stream, folder).error
    assert str(folder) in error and "tokenizer.save_pretrained" in error
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in run(*stream, empty).error


def test_numbers(run: Run, model: str, text: Path) -> None:
    stream = ("stream", "--model", model, "--input", text)
    for rate in ("0", "-3", "nan"):
        assert f"--rate {rate}: give 0.01 words per minute" in run(*stream, "--rate", rate).error
    for value in ("-1.0", "nan", "inf", "1e-40"):
        error = run(*stream, "--temperature", value).error
        assert f"temperature={value}: give a number >= 0" in error
    assert "cannot use device tpu" in run(*stream, "--device", "tpu").error
    lanes = run(*("evaluate", "--source", text, "--policy", "offline", "--out", "x"), "--lanes", 0)
    assert lanes.error.startswith("Invalid value for '--lanes': ")


def test_bugs_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, run: Run, text: Path, model: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(stream, "load_model", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run("stream", "--input", text)


def test_what_is_too_much_for_the_machine(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: Path
) -> None:
    deep = write_lines(tmp_path / "deep.jsonl", "[" * 100_000)
    where = ("evaluate", "--source", deep, "--policy", "offline", "--out", tmp_path / "out")
    assert run(*where).error.startswith("JSON that is nested too deeply")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(stream, "load_model", fail)
    assert run("stream", "--input", text).error.startswith("out of memory: give shorter sources")


def test_half_of_a_surrogate_pair(run: Run, model: str) -> None:
    """As in a file name, or an argument, that is not UTF-8."""
    error = run("show", "--model", model, "--source", "ein \udcff").error
    assert error.startswith("the word '\\udcff' has half of a surrogate pair")


def test_only_empty_lines(run: Run, model: str, tmp_path: Path) -> None:
    path, log = tmp_path / "text", tmp_path / "log"
    for content, lines in (("", 0), ("\n", 1), (" \n\t\r\n", 2)):
        path.write_text(content)
        done = run("stream", "--model", model, "--input", path, "--log", log)
        assert (done.code, done.out) == (0, "\n" * lines)
        assert [i.source_length for i in read_log(log)] == [0] * lines
    assert done.err == "2 sentences, AL -, LAAL -, RCO -, 0 forwards, 0 tokens\n"


def test_line_of_2000_words(run: Run, model: str, tmp_path: Path) -> None:
    """Read to its end, although the target is full long before."""
    path, out = write_lines(tmp_path / "text", "ab " * 2000), tmp_path / "out"
    data = ("--model", model, "--policy", "offline")
    assert run("evaluate", *data, "--source", path, "--out", out).code == 0
    (instance,) = read_log(out / "offline" / "instances.log")
    assert instance.source_length == instance.token_delays[0] == 2000


def test_long_line_live(run: Run, model: str, tmp_path: Path) -> None:
    """Word by word, one forward each, at a tenth of that length for the sake of time."""
    path, log = write_lines(tmp_path / "text", "ab " * 200), tmp_path / "log"
    data = ("--model", model, "--policy", "wait-k:2")
    assert run("stream", *data, "--input", path, "--log", log).code == 0
    (instance,) = read_log(log)
    assert instance.source_length == 200 and instance.forwards is not None
    assert instance.forwards <= 200 + len(instance.token_delays) + 1
