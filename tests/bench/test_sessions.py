"""Many sessions: every lane writes in every step, and memory is that of what is kept."""

from pathlib import Path
from typing import Any

import pytest
from tests.bench.benches import tiny_bench
from tests.models import save_tiny

from proactivellm.bench.sessions import run_sessions
from proactivellm.modality.loading import load


def test_counts_rates_and_ratios() -> None:
    result: dict[str, Any] = {}
    run_sessions(tiny_bench(), result)
    (workload,) = result["workloads"]
    assert workload["name"] == "drawn 12/12 wait-k:3"
    one, four = workload["sessions"]["1"], workload["sessions"]["4"]
    assert (one["forwards"], one["tokens"]) == (20, 20)  # two repeats of 10 steps
    assert (four["forwards"], four["tokens"]) == (20, 80)
    assert len(four["tokens_per_s_repeats"]) == 2
    assert workload["base"] == "1"
    ratio = four["tokens_per_s"] / one["tokens_per_s"]
    assert workload["ratios"] == {"4": ratio}
    assert four["floor_ms"] > one["floor_ms"] > 0
    bandwidth = result["copy_bandwidth_bytes_per_s"]
    entries = four["kv_bytes_per_session"] * 4
    weights = four["floor_ms"] / 1000 * bandwidth - entries
    assert weights == pytest.approx(
        one["floor_ms"] / 1000 * bandwidth - one["kv_bytes_per_session"]
    )


def test_pages_cost_little_where_streams_are_long() -> None:
    result: dict[str, Any] = {}
    run_sessions(tiny_bench(source=60, target=60, k=5, sessions=(6,), steps=120), result)
    row = result["workloads"][0]["sessions"]["6"]
    assert 1 < row["held_over_used"] <= 1.1
    # Keys and values of 2 layers, 2 heads of 8 numbers; prompts, units and tokens on average.
    assert row["kv_bytes_per_entry"] == 2 * 2 * 2 * 8 * 4
    assert 55 < row["kv_bytes_per_session"] / row["kv_bytes_per_entry"] < 75
    assert row["held_bytes_per_session"] <= row["store_bytes_per_session"]


def test_real_text_where_the_model_can_read_it(tmp_path: Path) -> None:
    text = load(save_tiny("qwen3", tmp_path / "model"))
    assert text.model.generation_config is not None
    text.model.generation_config.max_new_tokens = 8
    result: dict[str, Any] = {}
    run_sessions(tiny_bench(text, steps=5, repeats=1, sessions=(2,)), result)
    drawn, real = result["workloads"]  # without a calibration table, wait-k only
    assert real["name"] == "text wait-k:3"
    assert real["sessions"]["2"]["forwards"] == 5
