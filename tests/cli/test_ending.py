"""Exit codes and the one line: command lines, standard streams that are closed or full, help."""

import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import typer.main
from tests.cli.commands import ONE_THREAD, Run, write_lines

from proactivellm.cli import main, policies
from proactivellm.cli.app import app
from proactivellm.output.log import read_log
from proactivellm.policy.calibration import TARGETS
from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.spec import POLICIES, available_policies

PROGRAM = (sys.executable, "-m", "proactivellm")


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash, in which "$@" is the program with these arguments."""
    command = ["bash", "-c", f"set -o pipefail; {line}", "bash", *PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, timeout=120)


def test_a_reader_that_leaves_ends_it_quietly(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As `head -1` does."""
    text, log = write_lines(tmp_path / "text", *["Der Hund"] * 99), tmp_path / "log"
    reading, writing = os.pipe()

    def read_a_line() -> None:
        with open(reading, "rb", buffering=0) as pipe:
            while pipe.read(1) != b"\n":
                pass

    reader = threading.Thread(target=read_a_line)
    reader.start()
    monkeypatch.setattr(sys, "stdout", open(writing, "w"))
    with pytest.raises(SystemExit) as ended:
        main(["stream", "--model", model, "--input", str(text), "--log", str(log)])
    reader.join()
    sys.stdout.close()
    assert (ended.value.code, capfd.readouterr().err) == (141, f"loading {model}\n")
    assert 1 <= len(read_log(log)) < 99


def test_closed_and_full_standard_streams() -> None:
    done = shell('"$@" >&-; echo $?; "$@" >/dev/full; echo $?', "-h")
    assert done.stdout.split() == ["2", "2"]
    shut, full = done.stderr.splitlines()
    assert shut == "error: standard output is closed: send it to a file, or to /dev/null"
    assert full.startswith("error: ") and full.endswith(
        "No space left on device: make room, or write to another place"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["streem"], "No such command 'streem'. Did you mean 'stream'?: see `proactivellm --help`"),
        (["evaluate"], "Missing option '--source': see `proactivellm evaluate --help`"),
        (["score"], "Missing argument 'LOG': see `proactivellm score --help`"),
        (["stream", "--sinks", "x"], "Invalid value for '--sinks'"),
        (["stream", "--window", "9" * 30], "Invalid value for '--window'"),
        (["stream", "--pcm-rate", "9" * 30], "Invalid value for '--pcm-rate'"),
        (["stream", "--rate", "1e-300"], "--rate 1e-300: give 0.01 words per minute or more"),
        (["stream", "--rate", "inf"], "--rate inf: give"),
        (["score", "log", "--bootstrap", "9" * 30], "Invalid value for '--bootstrap'"),
        (["bench", "--out", "o", "--steps", "9" * 30], "Invalid value for '--steps'"),
        (["bench", "--out", "o", "--sessions", "9" * 30], "sessions '9999"),
    ],
)
def test_command_lines_are_refused_in_one_line(run: Run, arguments: list[str], told: str) -> None:
    assert run(*arguments).error.startswith(told)


def test_help_of_every_command(run: Run) -> None:
    program = typer.main.get_command(app)
    for name in program.commands:  # type: ignore[attr-defined]
        done = run(name, "-h")
        assert done.code == 0 and f"Usage: proactivellm {name}" in done.out
        assert done.out.count("Example:") == 1
    assert run("--version").out.startswith("proactivellm 0.")
    assert "Usage: proactivellm" in run("-h").out


def test_every_example_of_the_help_is_a_command() -> None:
    program = typer.main.get_command(app)
    for name, command in program.commands.items():  # type: ignore[attr-defined]
        lines = re.findall(r"^ {4}.*\bproactivellm (.*)", command.help, re.MULTILINE)
        assert lines, name
        for line in lines:
            called, *arguments = shlex.split(line)
            assert called == name
            program.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def test_the_table_of_policies_is_that_of_the_library() -> None:
    """A copy, as the library needs torch, for which a help page would take seconds."""
    rows = {
        row.name: (", ".join(key for key in row.keys if key not in TARGETS), row.summary)
        for row in available_policies()
    }
    assert rows == policies.TABLE and policies.TARGETS == tuple(TARGETS)
    with_threshold = [n for n, kind in POLICIES.items() if issubclass(kind, ThresholdPolicy)]
    assert list(policies.WITH_THRESHOLD) == with_threshold


def test_a_shell_completes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert "_PROACTIVELLM_COMPLETE=complete_bash" in run("--show-completion", "bash").out
    monkeypatch.setenv("_PROACTIVELLM_COMPLETE", "complete_bash")
    for typed, completed in (
        ("ev", ["evaluate"]),
        ("stream --mod", ["--model"]),
        ("stream --model tato", ["tatoeba-de-en"]),
        ("evaluate --policy entr", ["entropy"]),
    ):
        monkeypatch.setenv("COMP_WORDS", f"proactivellm {typed}")
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
        assert run().out.split() == completed
