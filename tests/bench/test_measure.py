"""Clocks and sizes are what they are said to be."""

import time

import pytest
import torch
from tests.bench.benches import tiny_bench
from tests.models import tiny_config

from proactivellm.bench.measure import (
    Laps,
    copy_bandwidth,
    held_entries,
    machine_facts,
    memory,
    model_facts,
    percentiles_ms,
    weight_bytes,
)
from proactivellm.bench.shapes import random_model
from proactivellm.forward.cache import PAGE

CPU = torch.device("cpu")


def test_waiting_takes_time_and_no_processor() -> None:
    laps = Laps(CPU)
    assert laps.time(lambda: time.sleep(0.05) or "slept") == "slept"
    assert laps.wall_s[0] >= 0.05 > 0.04 > laps.cpu_s[0]
    assert laps.time(lambda: None) is None and len(laps.wall_s) == len(laps.cpu_s) == 1


def test_percentiles() -> None:
    times = percentiles_ms([i / 1000 for i in range(101)])
    assert times == {"mean": 50, "p50": 50, "p95": 95, "p99": 99}


def test_memory_and_bandwidth_are_of_this_world() -> None:
    seen = memory(CPU)
    assert seen["peak_rss_bytes"] and 1 << 26 < seen["peak_rss_bytes"] < 1 << 40
    assert 1e8 < copy_bandwidth(CPU) < 1e13


@pytest.mark.parametrize("family", ["qwen3", "llama"])  # tied, and not
def test_every_step_reads_all_weights_but_an_embedding_of_its_own(family: str) -> None:
    model = random_model(tiny_config(family))
    total, read = weight_bytes(model)
    embedding = 120 * 32 * 4
    assert total == 4 * sum(p.numel() for p in model.model.parameters())
    assert total - read == (0 if family == "qwen3" else embedding)


def test_lanes_hold_whole_pages() -> None:
    cache = tiny_bench().model.new_cache(num_lanes=2)
    cache.reserve(0, 1)
    cache.reserve(1, PAGE + 1)
    assert held_entries(cache) == 3 * PAGE


def test_facts() -> None:
    model = tiny_bench().model
    assert model_facts(model)["layers"] == 2 and model_facts(model)["dtype"] == "float32"
    facts = machine_facts(CPU)
    assert facts["threads"] == torch.get_num_threads() and facts["cpu"]
