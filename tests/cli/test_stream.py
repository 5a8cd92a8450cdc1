"""`stream`: in a pipe, on a terminal, with a log, with bad input."""

import io
import os
import select
import signal
import sys
import threading
from pathlib import Path

import pytest
from tests.cli.commands import Forked, Run, save_short, write_lines

from proactivellm.cli.models import speculate_as
from proactivellm.modality.loading import load
from proactivellm.output.log import read_log
from proactivellm.policy.spec import parse_policy
from proactivellm.stream import stream_text

SENTENCES = ["Der Hund schläft auf dem Sofa", "", "Ein Mann putzt  ein Fenster."]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three lines, the second one empty, the last one without a line end."""
    file = tmp_path / "source.de"
    file.write_text("\n".join(SENTENCES), encoding="utf-8")
    return file


def expected(model: str, policy: str) -> list[str]:
    """What the library itself writes for SENTENCES, on one line each."""
    streaming = load(model)
    lines = []
    for sentence in SENTENCES:
        events = stream_text(streaming, parse_policy(policy), sentence)
        text = "".join(event.text for event in events if event.kind == "WRITE")
        lines.append(text.replace("\n", " ").replace("\r", " "))
    return lines


def test_target_alone_goes_to_a_pipe(run: Run, model: str, source: Path, tmp_path: Path) -> None:
    log = tmp_path / "stream.log"
    done = run(
        *("stream", "--model", model, "--policy", "wait-k:2"), *("--input", source, "--log", log)
    )
    lines = expected(model, "wait-k:2")
    assert (done.code, done.out) == (0, "".join(line + "\n" for line in lines))
    assert lines[0] and not lines[1] and lines[2]

    instances = read_log(log)
    assert [i.index for i in instances] == [0, 1, 2]
    assert [i.source for i in instances] == SENTENCES  # as given, white space too
    assert [i.source_length for i in instances] == [6, 0, 5]
    assert instances[0].delays[0] == 2 and instances[1].forwards == 0
    forwards = sum(i.forwards or 0 for i in instances)
    tokens = sum(i.tokens or 0 for i in instances)
    (summary,) = done.err.splitlines()
    assert summary.startswith("3 sentences, AL ") and ", LAAL " in summary and ", RCO " in summary
    assert summary.endswith(f", {forwards} forwards, {tokens} tokens")


def test_default_policy_without_a_table(run: Run, model: str, source: Path, tmp_path: Path) -> None:
    log = tmp_path / "stream.log"
    assert run("stream", "--model", model, "--input", source, "--log", log).code == 0
    assert {instance.policy for instance in read_log(log)} == {"wait-k:3"}


def test_bundled_model(run: Run, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source.de", "Ich habe keine Zeit.")
    done = run("stream", "--policy", "offline", "--input", source)
    assert done.code == 0 and "time" in done.out


def test_words_arrive_at_the_rate(run: Run, model: str, source: Path, tmp_path: Path) -> None:
    log = tmp_path / "stream.log"
    done = run(
        *("stream", "--model", model, "--policy", "wait-k:1", "--input", source),
        *("--rate", 3000, "--log", log),
    )
    assert done.code == 0
    first = read_log(log)[0]
    assert first.source_ms is not None and first.source_ms >= 6 * 20
    assert all(at >= 20 * units for at, units in zip(first.elapsed, first.delays, strict=True))


def test_sampling_depends_on_the_seed_only(run: Run, model: str, source: Path) -> None:
    command = ("stream", "--model", model, "--input", source, "--temperature", 1.5, "--seed")
    outs = [run(*command, seed).out for seed in (1, 1, 2)]
    assert outs[0] == outs[1] != outs[2]


def test_proposals_change_nothing_that_is_written(run: Run, model: str, source: Path) -> None:
    command = ("stream", "--model", model, "--policy", "hold-n:1,draft=3", "--input", source)
    plain = run(*command)
    for wish in ("lookup:2", model):
        done = run(*command, "--speculate", wish)
        assert done.out == plain.out and done.err != plain.err  # it counts forwards and tokens
    assert run(*command, "--speculate", "lookup:0").error.startswith(
        "--speculate lookup:0: tokens=0"
    )
    assert run(*command, "--speculate", "no/where:").error.startswith("--speculate no/where:: ")
    with pytest.raises(ValueError, match="a draft model reads text alone; for recordings give"):
        speculate_as(model, None, listens=True)


def test_keys_and_values_in_int8(run: Run, model: str, source: Path) -> None:
    command = ("stream", "--model", model, "--policy", "wait-k:2", "--input", source)
    done = run(*command, "--kv", "int8", "--window", 16)
    assert done.code == 0 and done.out.count("\n") == len(SENTENCES)
    assert run(*command, "--kv", "int4").error == "--kv int4: choose from none, int8"


def test_window(run: Run, model: str, tmp_path: Path) -> None:
    source, log = write_lines(tmp_path / "source", "ab cd " * 20, "ab"), tmp_path / "log"
    command = ("stream", "--model", model, "--policy", "wait-k:1", "--input", source, "--log", log)
    done = run(*command, "--window", 16, "--sinks", 1)
    long, short = read_log(log)
    assert done.code == 0 and long.source_length == 40 and 24 < long.dropped_units < 40
    assert (short.dropped_units, short.dropped_tokens) == (0, 0)
    assert done.err.endswith(
        f" tokens, dropped {long.dropped_units} units, {long.dropped_tokens} tokens\n"
    )
    everything = run(*command, "--window", 500)
    assert "dropped" not in everything.err and everything.out == run(*command).out
    assert "--sinks 2: there is no window" in run(*command, "--sinks", 2).error
    error = run(*command, "--window", 8, "--sinks", 4).error
    assert error.startswith("a window of 8 source tokens is too small") and "give at least" in error
    assert run(*command, "--window", 1).code == 2


def test_target_appears_while_the_source_arrives(model: str, tmp_path: Path) -> None:
    """Word by word through real pipes, then a signal to end in the middle of the second line."""
    log = tmp_path / "log"
    command = ("stream", "--model", model, "--policy", "wait-k:1", "--log", log)
    with Forked(*command) as process:
        out = b""
        for lines, typed in enumerate(("Der ", "Hund schläft\nEin Ma")):
            process.stdin.write(typed.encode())
            while out.count(b"\n") < lines or out.endswith(b"\n") or not out:
                assert select.select([process.stdout], [], [], 60)[0], (
                    "no text before the line ends"
                )
                out += process.stdout.read(1 << 16)
        assert len(read_log(log)) == 1  # it is there before the program ends
        process.send_signal(signal.SIGTERM)
        rest, err = process.communicate()
    assert process.code == 143
    shown = (out + rest).decode().splitlines()
    first, second = read_log(log)
    assert [first.source, second.source] == ["Der Hund schläft", "Ein Ma"]  # also half a word
    assert shown == [first.prediction, second.prediction]
    assert err.splitlines()[1].startswith(b"2 sentences, AL") and err.count(b"\n") == 2


def test_terminal_shows_aligned_columns(
    monkeypatch: pytest.MonkeyPatch, model: str, source: Path, run: Run
) -> None:
    master, slave = os.openpty()
    shown = io.BytesIO()

    def read_terminal() -> None:
        try:
            while chunk := os.read(master, 1 << 16):
                shown.write(chunk)
        except OSError:  # the other side was closed
            pass

    reader = threading.Thread(target=read_terminal)
    reader.start()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("TERM", "xterm-256color")
        done = run("stream", "--model", model, "--policy", "wait-k:2", "--input", source)
    reader.join()
    os.close(master)
    assert (done.code, done.out, done.err) == (0, "", "")
    text = shown.getvalue().decode()
    assert "\x1b[" in text and "policy  wait-k:2" in text
    assert text.count("(empty line)") == 1 and text.count("3 sentences, AL") == 1
    for name in ("source", "target", "path"):
        assert name in text


def test_lines_are_turns_of_a_conversation_that_goes_on(run: Run, tmp_path: Path) -> None:
    model, lines, file = (
        save_short(tmp_path / "model", chat=True),
        tmp_path / "lines",
        tmp_path / "c",
    )

    def written(text: str, *flags: object) -> list[str]:
        lines.write_text(text, encoding="utf-8")
        done = run("stream", "--model", model, "--policy", "wait-k:2", "--input", lines, *flags)
        assert done.code == 0, done.err
        return done.out.splitlines()

    first, second = "Der Hund schläft\n", "\nEin Mann\n"
    whole = written(first + second, "--conversation", tmp_path / "whole")
    halves = [written(each, "--conversation", file) for each in (first, second)]
    assert halves[0] + halves[1] == whole
    alone = written(first + second)
    assert whole[0] == alone[0] and whole[2] != alone[2]  # it has read the turn before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--window", 64], "--conversation keeps all its text in view: leave --window out"),
        (["--input", "-", "--input", "a"], "--conversation takes its turns from one input: give"),
        (["--input", "a.wav"], "--conversation is for text: a recording cannot be a turn"),
        ([], "a conversation needs a model whose prompt is that of its chat template"),
    ],
)
def test_what_is_no_conversation(
    run: Run, model: str, tmp_path: Path, flags: list[object], message: str
) -> None:
    done = run("stream", "--model", model, "--conversation", tmp_path / "c", *flags)
    assert done.error.startswith(message)


def test_a_file_that_is_no_conversation(run: Run, tmp_path: Path, source: Path) -> None:
    model = save_short(tmp_path / "model", chat=True)
    done = run("stream", "--model", model, "--conversation", source)
    assert f"{source} holds no session of this model" in done.error
