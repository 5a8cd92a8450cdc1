"""What a model folder holds: its code does not run, what is wrong with it is told in one line."""

import io
import shutil
import sys
from pathlib import Path

import pytest
from tests.cli.commands import Run, write_lines
from tests.model import broken


@pytest.fixture
def folder(model: str, tmp_path: Path) -> Path:
    """A folder of a tiny model, to be changed."""
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "text.de", "Der Hund schläft")


@pytest.mark.parametrize("place", ["config.json", "tokenizer_config.json"])
def test_a_source_that_says_yes_does_not_run_code(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """transformers would ask on standard input, and take the source for the answer."""
    mark = folder / "mark"
    (folder / "own.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        "from transformers import Qwen3Config as Own\n"
    )
    if place == "config.json":
        broken.setting(model_type="own", auto_map={"AutoConfig": "own.Own"})(folder)
    else:
        auto_map = {"AutoTokenizer": ["own.Own", None]}
        broken.setting(place, tokenizer_class="Own", auto_map=auto_map)(folder)
        (folder / "tokenizer.json").unlink()
    source = io.TextIOWrapper(io.BytesIO(b"y\ny\ny\n"))
    monkeypatch.setattr(sys, "stdin", source)
    error = run("stream", "--model", folder).error
    assert "--trust-remote-code" in error and str(folder) in error
    assert source.read() == "y\ny\ny\n" and not mark.exists()


@pytest.mark.parametrize("command", ["stream", "evaluate", "calibrate", "show", "bench"])
def test_every_command_that_loads_a_model_can_be_told_to_trust_it(run: Run, command: str) -> None:
    assert "--trust-remote-code" in run(command, "--help").out


def test_the_weights_come_from_the_folder_or_nothing_runs(
    run: Run, folder: Path, text: Path, tmp_path: Path
) -> None:
    broken.weights(lambda w: w.pop(broken.QUERY))(folder)
    data = ("--model", folder, "--policy", "wait-k:1")
    out = tmp_path / "out"
    for command in (("stream", "--input", text), ("evaluate", "--source", text, "--out", out)):
        assert f"lack 1 weight ({broken.QUERY})" in run(*command, *data).error
    assert not out.exists()
