"""Ctrl-C and SIGTERM: what was heard, written and measured is kept; a second one ends at once."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.commands import Run, listen_to_ctrl_c, write_lines

from proactivellm.cli.display import PipeDisplay
from proactivellm.cli.stopping import Stops
from proactivellm.evaluation import calibrate
from proactivellm.output.log import read_log
from proactivellm.policy.calibration import Calibration
from proactivellm.session.engine import Engine
from proactivellm.stream import pace

LONG = " ".join(["der Hund schläft"] * 40)
TWICE = """
import os, signal
from proactivellm.cli.stopping import Stops
stops = Stops()
with stops.installed(), stops.noting():
    os.kill(os.getpid(), signal.SIGTERM)
    assert stops.came
    print("goes on", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("never")
"""


@pytest.fixture(autouse=True)
def hears_ctrl_c() -> Iterator[None]:
    """Also where the tests were started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_second_signal_ends_at_once() -> None:
    command = [sys.executable, "-c", TWICE]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=listen_to_ctrl_c)
    assert (done.returncode, done.stdout, done.stderr) == (130, "goes on\n", "")


def test_a_signal_is_noted_though_nobody_reads_what_is_said(monkeypatch) -> None:
    def closed(file: int, text: bytes) -> int:
        raise BrokenPipeError

    stops = Stops()
    with stops.installed(), stops.noting("it ends soon"), monkeypatch.context() as patched:
        patched.setattr(os, "write", closed)
        signal.raise_signal(signal.SIGTERM)
        assert stops.came


def test_a_process_that_is_forked_off_dies_of_a_signal() -> None:
    with Stops().installed():
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_a_source_ends_where_it_is() -> None:
    def endless(raises_at: int) -> Iterator[int]:
        for number in itertools.count():
            if number == raises_at:
                signal.raise_signal(signal.SIGINT)
            yield number

    stops = Stops()
    with stops.installed(), stops.noting():  # while it is waited for
        assert list(stops.until_stopped(endless(2))) == [0, 1]
    stops, heard = Stops(), []
    with stops.installed(), stops.noting():
        for number in stops.until_stopped(endless(99)):
            heard.append(number)
            if number == 2:
                signal.raise_signal(signal.SIGTERM)  # while the model computes: noted
    assert heard == [0, 1, 2] and stops.code == 143
    stops = Stops()
    with stops.installed(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Stops().installed():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_file_is_cut(
    run: Run,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
) -> None:
    source, log = write_lines(tmp_path / "source", "ein Mann", LONG, "nie"), tmp_path / "log"
    seen: list[Any] = []

    def event(self: PipeDisplay, event: Any) -> None:
        seen.append(event)
        if event.units_read == 5:
            signal.raise_signal(number)

    monkeypatch.setattr(PipeDisplay, "event", event)
    command = ("stream", "--model", model, "--policy", "wait-k:1", "--input", source)
    done = run(*command, "--log", log)
    assert done.code == code and done.err.startswith("2 sentences, AL")
    whole, cut = read_log(log)
    assert whole.source == "ein Mann" and cut.source == LONG
    assert max(cut.token_delays) <= 5 and not done.err.count("Traceback")


def test_a_slow_pace_is_not_waited_for(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, log = write_lines(tmp_path / "source", LONG), tmp_path / "log"
    monkeypatch.setattr(pace.time, "sleep", lambda _: signal.raise_signal(signal.SIGTERM))
    command = ("stream", "--model", model, "--policy", "wait-k:1", "--input", source)
    assert run(*command, "--rate", 0.1, "--log", log).code == 143  # ten minutes a word
    (logged,) = read_log(log)
    assert logged.source == LONG and logged.source_length <= 1


def test_several_files_are_cut(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write_lines(tmp_path / name, LONG) for name in "ab"]
    step, steps = Engine.step, iter(range(99))

    def stopped(self: Engine) -> Any:
        if next(steps) == 4:
            signal.raise_signal(signal.SIGTERM)
        return step(self)

    monkeypatch.setattr(Engine, "step", stopped)
    command = ("stream", "--model", model, "--policy", "wait-k:1", "--log", tmp_path / "log")
    done = run(*command, "--input", files[0], "--input", files[1])
    assert done.code == 143 and done.out.count("\n") == 2
    for instance in read_log(tmp_path / "log"):
        assert instance.source == LONG and 0 < len(instance.token_delays) < 8


def test_measured_policies_are_kept(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_lines(tmp_path / "source", "der Hund schläft")

    def measured(model: Any, jobs: Any, texts: list[str], **_: Any) -> Calibration:
        if texts == ["confidence"]:
            signal.raise_signal(signal.SIGTERM)
        point = {"policy": texts[0], "options": {}, "threshold": 1.0}
        scores = {"LAAL": 2.0, "RCO": 0.5, "AL": 2.0, "quality": 30.0}
        meta = {"source": "dev", "num_instances": 1}
        return Calibration.model_validate({"meta": meta, "points": ({**point, **scores},)})

    monkeypatch.setattr(calibrate, "calibrate", measured)
    out = tmp_path / "table.json"
    command = ("calibrate", "--model", model, "--source", source, "--target", source, "--out", out)
    done = run(*command, "--policy", "entropy", "--policy", "confidence")
    assert done.code == 143
    assert done.err == f"interrupted: policies that were measured to the end are in {out}\n"
    assert [point.policy for point in Calibration.load(out).points] == ["entropy"]


def test_a_full_disk_is_one_line(run: Run, model: str, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ein Mann")
    command = ("stream", "--model", model, "--policy", "wait-k:1", "--input", source)
    done = run(*command, "--log", "/dev/full")
    assert done.code == 2 and done.out.count("\n") == 1  # the target was written
    assert done.err == (
        "error: /dev/full: No space left on device: make room, or write to another place\n"
    )
