"""What a step costs: the promise of packing, counted."""

import importlib.util
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "training_cost.py"


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
