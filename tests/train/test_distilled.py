"""Objectives of distillation beside each other: arms are recipes, a student has fewer layers."""

import runpy
import tomllib
from pathlib import Path

import pytest

from proactivellm.files.toml import load_toml
from proactivellm.modality.loading import load
from proactivellm.train.recipe import Recipe

ROOT = Path(__file__).parents[2]
BENCH = runpy.run_path(str(ROOT / "benchmarks" / "distilled.py"))


@pytest.mark.parametrize("arm", BENCH["ARMS"])
@pytest.mark.parametrize("student", ["tatoeba-de-en", "smollm2-135m"])
def test_every_arm_learns_from_the_teacher_alone(arm: str, student: str, tmp_path: Path) -> None:
    teacher = {"teacher": "tatoeba-de-en"}
    change = BENCH["distilling"](teacher, BENCH["ARMS"][arm], every=3)
    over = tmp_path / "over.toml"
    over.write_text("\n".join(BENCH["toml_tables"](change)), encoding="utf-8")
    assert tomllib.loads(over.read_text(encoding="utf-8")) == change
    recipe = load_toml(ROOT / "recipes" / f"{student}.distilled.toml", Recipe, [over])
    assert recipe.distillation and recipe.distillation.teacher == "tatoeba-de-en"
    weights = (recipe.objective.batch_weight, recipe.objective.mslm_weight)  # type: ignore[attr-defined]
    assert weights == (0, 0) and recipe.distillation.rollouts.every == 3


def test_a_student_has_the_first_layers(tmp_path: Path) -> None:
    folder = BENCH["shortened"]("tatoeba-de-en", 1, tmp_path / "short")
    short, whole = load(folder).model, load("tatoeba-de-en").model
    assert short.config.num_hidden_layers == len(short.get_decoder().layers) == 1
    ours, theirs = (each.get_decoder().layers[0].state_dict() for each in (short, whole))
    assert all(ours[name].equal(theirs[name]) for name in ours)
