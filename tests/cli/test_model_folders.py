"""What a model folder holds: its code does not run, what is wrong with it is told in one line."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from tests.backbone import broken
from tests.cli.commands import Run, write_lines


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


class TestGenerationSettings:
    def test_what_is_not_applied_is_told_in_one_line(
        self, run: Run, folder: Path, text: Path, tmp_path: Path
    ) -> None:
        broken.setting("generation_config.json", num_beams=4, bad_words_ids=[[3]])(folder)
        data = ("--model", folder, "--policy", "wait-k:1")
        told = "generation_config settings not applied: num_beams, bad_words_ids"
        done = run("stream", *data, "--input", text)
        assert done.code == 0 and f"warning: {told}" in done.err.splitlines()
        broken.setting("generation_config.json", do_sample=True, num_beams=1)(folder)
        done = run("evaluate", *data, "--source", text, "--out", tmp_path / "out")
        told = "generation_config settings not applied: bad_words_ids, do_sample"
        assert done.code == 0
        assert f"warning: tokens are chosen greedily here: {told}" in done.err.splitlines()

    @pytest.mark.parametrize(
        ("setting", "told"),
        [
            ({"temperature": "hot"}, "temperature='hot': give a number"),
            ({"temperature": -1.0}, "temperature=-1.0: give a number >= 0"),
            ({"top_k": 1.5}, "top_k=1.5: give a whole number"),
            ({"repetition_penalty": [2]}, r"repetition_penalty=[2]: give a number"),
        ],
    )
    def test_wrong_values_are_told_before_anything_is_read(
        self, run: Run, folder: Path, text: Path, setting: dict[str, object], told: str
    ) -> None:
        broken.setting("generation_config.json", do_sample=True, **setting)(folder)
        stream = ("stream", "--model", folder, "--policy", "wait-k:1", "--input", text)
        assert run(*stream).error.startswith(f"generation_config.json: {told}")
        assert run(*stream, "--temperature", 0).code == 0

    def test_the_seed_is_that_of_sampling_that_the_model_recommends(
        self, run: Run, folder: Path, text: Path
    ) -> None:
        settings = {"do_sample": True, "temperature": 50.0, "top_k": 0}
        broken.setting("generation_config.json", **settings)(folder)
        stream = ("stream", "--model", folder, "--policy", "wait-k:1", "--input", text)
        first, same, other = (run(*stream, "--seed", seed).out for seed in (0, 0, 1))
        assert first == same != other


class TestHeads:
    def test_of_a_policy(self, run: Run, model: str, text: Path) -> None:
        policy = "attention:threshold=0.5,heads=0.3-2.0"
        error = run("stream", "--model", model, "--policy", policy, "--input", text).error
        assert "there is no head 2.0: the model has 2 layers of 4 heads (0.0 to 1.3)" in error

    def test_of_the_calibration_table_of_another_model(
        self, run: Run, folder: Path, text: Path
    ) -> None:
        table = {"meta": {"source": "dev", "num_instances": 1}, "heads": [[0, 4]], "points": []}
        broken.setting("calibration.json", version=2, **table)(folder)
        error = run("stream", "--model", folder, "--input", text).error
        assert f"{folder}/calibration.json is of another model: there is no head 0.4" in error


def test_a_layout_is_chosen_by_name(run: Run, folder: Path, text: Path, tmp_path: Path) -> None:
    data = ("--model", folder, "--policy", "wait-k:1")
    out = tmp_path / "out"
    error = run("stream", *data, "--input", text, "--layout", "diagonal").error
    assert "unknown layout 'diagonal'; known: grouped, interleaved, reencoded" in error
    run("evaluate", *data, "--source", text, "--out", out, "--layout", "reencoded")
    note = json.loads(next(out.glob("*/run.json")).read_text())
    assert (note["streaming"]["layout"], note["streaming"]["phi"]) == ("reencoded", 0)
