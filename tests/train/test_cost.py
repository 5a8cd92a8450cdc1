"""What a step costs: the promise of packing, counted; that of a recipe, timed."""

import importlib.util
import runpy
from pathlib import Path

import pytest
import torch
from tests.models import save_tiny

from proactivellm.core.masks import SHARED
from proactivellm.files.toml import load_toml
from proactivellm.train.recipe import Recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BENCHMARK = BENCHMARKS / "training_cost.py"
RECIPE = """
[data.train]
tsv = "PAIRS"
[data.valid]
tsv = "PAIRS"
[backbone]
pretrained = "BASE"
[stream.prompt]
target_head = "="
[optimisation]
batch_size = 2
[lora]
r = 2
merge = false
[output]
eval_steps = 1
"""


def test_a_packed_step_costs_at_most_1_6_times_plain_fine_tuning():
    spec = importlib.util.spec_from_file_location("training_cost", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    case = benchmark.Case(
        name="test", layers=4, width=128, inner=384, vocabulary=2000, tokens=96, samples=1
    )
    rows = {row["step"]: row for row in benchmark.measure(case, repeats=0)}
    assert rows["packed"]["flop_ratio"] <= 1.6
    assert rows["packed"]["flop_ratio"] < 0.85 * rows["separate"]["flop_ratio"]
    # Counted by hand: two FLOPs per weight and token forward, twice that backward, and attention.
    tokens, heads = 2 * case.tokens, case.tokens
    weights = case.layers * (4 * case.width**2 + 3 * case.width * case.inner)
    attention = case.layers * 2 * 2 * tokens**2 * case.width
    forward = 2 * weights * tokens + 2 * case.vocabulary * case.width * heads + attention
    assert rows["plain"]["gflop"] * 1e9 == pytest.approx(3 * forward, rel=0.01)
    assert "| packed |" in benchmark.as_markdown(case, list(rows.values()))


def test_a_recipe_is_timed_on_the_same_samples_as_plain_fine_tuning(tmp_path: Path) -> None:
    benchmark = runpy.run_path(str(BENCHMARKS / "recipe_cost.py"))
    base = save_tiny("qwen3", tmp_path / "base", chat=True)
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"Hund {i} schläft\tdog {i}\n" for i in range(8)), encoding="utf-8")
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE.replace("PAIRS", str(pairs)).replace("BASE", str(base)))
    recipe = load_toml(file, Recipe)
    trainer = benchmark["make"](recipe, str(tmp_path / "out"))
    taken = list(benchmark["batches"](trainer, 2, 9))
    assert len(taken) == 4
    for whole, full in taken:
        assert int(whole["view"].max()) == 1
        first, alone = (  # the source and the full view
            batch["input_ids"][(batch["view"] == SHARED) | (batch["view"] == 0)].tolist()
            for batch in (whole, full)
        )
        assert first == alone
    model, (_, full) = trainer.learner.model.eval(), taken[0]
    told = model(input_ids=full["input_ids"], labels=full["label"], shift_labels=full["label"])
    torch.testing.assert_close(benchmark["plain_loss"](model, full), told.loss)
    plain, streaming = benchmark["measure"](recipe, steps=2)
    assert plain["speed"] == 1 and streaming["s/step"] == pytest.approx(2 * streaming["s/sample"])
