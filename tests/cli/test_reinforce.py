"""`reinforce`: a model folder with a new head, taken up again, and what it refuses."""

import json
from pathlib import Path

import pytest
from tests.cli.commands import Run, write_lines

from proactivellm.backbone.bundled import bundled_models
from proactivellm.policy.calibration import Calibration
from proactivellm.policy.head import Head
from proactivellm.rl.run import CURVE_FILE

MODEL = bundled_models()["tatoeba-de-en"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    source = write_lines(tmp_path / "a.de", "Ich bin müde.", "Wo ist das Buch?")
    target = write_lines(tmp_path / "a.en", "I am tired.", "Where is the book?")
    return ("--source", str(source), "--target", str(target), "--group", "3")


def test_it_makes_a_model_and_goes_on(run: Run, files: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("reinforce", *files, "--out", out, "--steps", 1)
    assert done.code == 0 and "model saved in" in done.out, done
    first = Head.load(out)
    assert first.digest != Head.load(MODEL).digest
    assert first.about["label"] == "reward: chrF - 0.5 DAL, tolerance 0.02"
    card, before = ((folder / "README.md").read_text("utf-8") for folder in (out, MODEL))
    begins, title = "---\nlanguage: [de, en]\n", "\n# out\n\n**Reinforced.** The head of the policy"
    assert (
        card.startswith(begins) and title in card and card.endswith(before[before.index("\n# ") :])
    )
    assert "reward: chrF - 0.5 DAL, tolerance 0.02. It took 1 step on 2 sources of a.de." in card
    assert "the card of `tatoeba-de-en`, with the scores of before." in card
    table = Calibration.load(out)
    assert {point.policy for point in table.points} == {
        point.policy for point in Calibration.load(MODEL).points
    } - {"learned"}
    assert run("reinforce", *files, "--out", out, "--steps", 2).code == 0
    curve = [json.loads(line) for line in (out / CURVE_FILE).read_text().splitlines()]
    again = (out / "README.md").read_text("utf-8")
    assert again.count("Reinforced") == 1 and "It took 2 steps" in again
    assert [line["step"] for line in curve] == [1, 2] and Head.load(out).digest != first.digest
    error = run("reinforce", *files, "--out", out, "--batch", 1).error
    assert "holds another run (plan.num_sources was 8, and is 1 now)" in error
    error = run("reinforce", *files, "--out", out, "--seed", 1).error
    assert "holds another run (plan.seed was 0, and is 1 now)" in error


def test_what_it_refuses(run: Run, files: tuple[str, ...], tmp_path: Path) -> None:
    command = ("reinforce", *files, "--out", tmp_path / "out")
    assert "--latency AL: give LAAL or DAL" in run(*command, "--latency", "AL").error
    error = run(*command, "--policy", "wait-k:3").error
    assert error == "--policy wait-k:3: only the policy learned is trained by reward"
    error = run("reinforce", *files[:2], "--out", tmp_path / "out").error
    assert error == "rewards need references: give --target"
    error = run(*command, "--model", "lookup-qa").error
    assert "the model has no learned.safetensors" in error
    assert not (tmp_path / "out").exists()
