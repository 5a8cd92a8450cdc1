"""`stream` of several inputs: all at once, each as if it were alone, and none holds up another."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.cli.commands import Done, Forked, Run, shortened, write_lines
from tests.families import OBEYING, save_random

from proactivellm.cli import side_by_side
from proactivellm.core.unit import Unit
from proactivellm.output.log import read_log
from proactivellm.session.engine import Engine

WORDS = "Der Hund schläft auf dem Sofa und ein Mann putzt das Fenster".split()
PATIENCE_S = 60.0


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three inputs of 4, 1 and 3 lines, of which one is empty."""
    sources = [" ".join(WORDS[i % 5 : 6 + i % 7]) for i in range(8)]
    sources[1] = ""
    parts = {"a.de": sources[:4], "b.de": sources[4:5], "c.de": sources[5:]}
    return [write_lines(tmp_path / name, *part) for name, part in parts.items()]


@pytest.fixture(scope="session")
def limited(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a model of 64 positions."""
    return shortened(save_random("gpt2", OBEYING["gpt2"], tmp_path_factory.mktemp("gpt2")))


def options(files: Iterable[Path]) -> list[object]:
    return [part for file in files for part in ("--input", file)]


def lines(done: Done) -> list[str]:
    """What was written; a random model writes characters that `splitlines` takes for line ends."""
    return done.out.split("\n")[:-1]


def targets(done: Done, file: Path) -> list[str]:
    """The lines of an input, in order."""
    parts = (line.partition("\t") for line in lines(done))
    return [target for name, _, target in parts if name == str(file)]


@pytest.mark.parametrize("sampling", [(), ("--temperature", 1.5, "--seed", 3)])
def test_each_is_written_as_if_alone(
    run: Run, model: str, files: list[Path], tmp_path: Path, sampling: tuple[object, ...]
) -> None:
    command = ("stream", "--model", model, "--policy", "wait-k:2", *sampling)
    log = tmp_path / "log"
    done = run(*command, *options(files), "--log", log)
    assert done.code == 0 and done.out.count("\n") == 8
    for file in files:
        assert targets(done, file) == lines(run(*command, "--input", file))
    instances = read_log(log)
    assert [instance.index for instance in instances] == [*range(8)]  # as they were completed
    sources = [line for file in files for line in file.read_text().splitlines()]
    assert sorted(instance.source for instance in instances) == sorted(sources)

    forwards = sum(instance.forwards or 0 for instance in instances)
    shared = re.search(r"8 sentences, AL .*, (\d+) forwards in (\d+) steps, \d+ tokens$", done.err)
    assert shared and int(shared[1]) == forwards > int(shared[2])


def test_queues_are_bounded(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write_lines(tmp_path / name, "ab cd " * 40, "ab " * 30) for name in "ab"]
    command = ("stream", "--model", model, *options(files), "--policy")
    expected = {policy: lines(run(*command, policy)) for policy in ("wait-k:3", "offline")}
    longest = 0
    push = Engine.push

    def watched_push(engine: Engine, lane: int, units: Iterable[Unit]) -> None:
        nonlocal longest
        push(engine, lane, units)
        longest = max(longest, len(engine.state(lane).pending))

    monkeypatch.setattr(Engine, "push", watched_push)
    monkeypatch.setattr(side_by_side, "MAX_PENDING", 5)
    for policy, written in expected.items():
        assert sorted(lines(run(*command, policy))) == sorted(written)
    assert longest == 5


def test_a_pipe_that_nobody_writes_to_holds_up_none(
    run: Run, model: str, files: list[Path], tmp_path: Path
) -> None:
    pipe, log = tmp_path / "pipe", tmp_path / "log"
    os.mkfifo(pipe)
    waited: list[int] = []

    def write_when_the_others_are_done() -> None:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s and (not log.exists() or log.read_text().count("\n") < 8):
            time.sleep(0.01)
        waited.append(len(read_log(log)))
        with open(pipe, "w", buffering=1) as writer:  # also opening waits for the other side
            writer.write("Der ")
            time.sleep(0.05)
            writer.write("Hund\n")

    writer = threading.Thread(target=write_when_the_others_are_done)
    writer.start()
    inputs = options([pipe, *files])
    done = run("stream", "--model", model, "--policy", "wait-k:1", *inputs, "--log", log)
    writer.join()
    assert (done.code, waited) == (0, [8])
    assert len(targets(done, pipe)) == 1 and read_log(log)[-1].source == "Der Hund"


def test_all_are_paced_from_the_start(run: Run, model: str, tmp_path: Path) -> None:
    """20 ms a word; a line begins when the one before it is complete."""
    short = write_lines(tmp_path / "short", "ab ab ab", "ab ab")
    long = write_lines(tmp_path / "long", "cd " * 40)
    log = tmp_path / "log"
    done = run(
        *("stream", "--model", model, "--policy", "wait-k:1", *options([long, short])),
        *("--rate", 3000, "--log", log),
    )
    instances = read_log(log)
    assert done.code == 0 and [i.source_length for i in instances] == [3, 2, 40]
    for instance in instances:
        assert instance.source_ms is not None
        assert instance.source_ms >= 20 * instance.source_length
        assert instance.elapsed and all(
            at_ms >= 20 * units
            for at_ms, units in zip(instance.elapsed, instance.delays, strict=True)
        )


def test_a_bad_line_ends_its_input_only(
    run: Run, model: str, files: list[Path], tmp_path: Path
) -> None:
    bad, log = tmp_path / "latin1.de", tmp_path / "log"
    bad.write_bytes("Der Hund\nEin schläft\nEin Mann\n".encode("latin-1"))
    done = run("stream", "--model", model, *options([bad, *files]), "--log", log)
    assert done.code == 2 and len(targets(done, bad)) == 1
    assert [len(targets(done, file)) for file in files] == [4, 1, 3]
    assert len(read_log(log)) == 9
    summary, error = done.err.splitlines()
    assert summary.startswith("9 sentences, ")
    assert error.startswith(f"error: {bad}, line 2: 0xe4 is not UTF-8")


def test_a_line_longer_than_the_model_ends_its_input_only(
    run: Run, limited: str, tmp_path: Path
) -> None:
    long = [write_lines(tmp_path / name, "ab", "ab " * 80, "ab") for name in ("long", "longer")]
    short = write_lines(tmp_path / "short", *["ab cd"] * 4)
    done = run("stream", "--model", limited, *options([*long, short]))
    assert done.code == 2
    assert [len(targets(done, file)) for file in (*long, short)] == [1, 1, 4]
    summary, *errors = done.err.splitlines()
    assert summary.startswith("6 sentences, ")
    assert sorted(error.partition(": the stream")[0] for error in errors) == [
        f"error: {file}, line 2" for file in long
    ]
    whole = run("stream", "--model", limited, *options([*long, short]), "--window", 32)
    assert whole.code == 0 and [len(targets(whole, file)) for file in long] == [3, 3]


def test_what_a_window_dropped_is_told(run: Run, model: str, tmp_path: Path) -> None:
    files = [write_lines(tmp_path / name, "ab cd " * 20) for name in "ab"]
    log = tmp_path / "log"
    window = ("--window", 16, "--sinks", 1)
    command = ("stream", "--model", model, "--policy", "wait-k:1", *window)
    done = run(*command, *options(files), "--log", log)
    units = [instance.dropped_units for instance in read_log(log)]
    tokens = [instance.dropped_tokens for instance in read_log(log)]
    assert done.code == 0 and min(units) > 0
    assert done.err.endswith(f" tokens, dropped {sum(units)} units, {sum(tokens)} tokens\n")
    assert targets(done, files[0]) == lines(run(*command, "--input", files[0]))


def test_mistakes(run: Run, model: str, files: list[Path], tmp_path: Path) -> None:
    stream = ("stream", "--model", model)
    twice = run(*stream, *options([files[0], files[1], files[0]])).error
    assert twice == f"--input {files[0]} is the same as --input {files[0]}: name each input once"
    assert "--input - is the same" in run(*stream, "--input", "-", "--input", "-").error
    missing = tmp_path / "missing"
    error = run(*stream, *options([files[0], missing])).error
    assert error == f"{missing}: No such file or directory: check the path"
    error = run(*stream, *options(files), "--log", missing / "log").error
    assert error.startswith(f"{missing / 'log'}: No such file or directory: there is no folder")


def test_hundreds(run: Run, model: str, tmp_path: Path) -> None:
    files = [write_lines(tmp_path / str(i), WORDS[i % 12]) for i in range(300)]
    done = run("stream", "--model", model, "--policy", "wait-k:1", *options(files))
    assert done.code == 0 and done.err.startswith("300 sentences, ")
    assert all(len(targets(done, file)) == 1 for file in files)


def test_ctrl_c(model: str, files: list[Path], tmp_path: Path) -> None:
    """While it waits for two pipes, of which nobody has opened one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    inputs = [*options([pipe, *files]), "--input", "-"]
    log = tmp_path / "log"
    command = ("stream", "--model", model, "--policy", "wait-k:1", *inputs, "--log", log)
    with Forked(*command) as process:
        process.stdin.write(b"Ein Mann\nDer ")
        written = [process.stdout.readline() for _ in range(9)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.code == 130
    assert sum(line.startswith(b"-\t") for line in written) == 1
    assert out.startswith(b"-\t") and out.count(b"\n") == 1  # of what had arrived of its line
    assert err.splitlines()[1].startswith(b"10 sentences, AL") and err.count(b"\n") == 2
    assert [i.source for i in read_log(log)][9:] == ["Der "]
