"""A bounded stream keeps its size; one without a window does not."""

from typing import Any

from tests.bench.benches import tiny_bench

from proactivellm.bench.endless import run_window


def test_memory_is_constant_with_a_window_only() -> None:
    result: dict[str, Any] = {}
    run_window(tiny_bench(window=16, units=(40, 200)), result)
    near, far = result["windowed"]["near"], result["windowed"]["far"]
    assert (near["units"], far["units"]) == (40, 200)
    assert near["steps"] == far["steps"] == 32
    assert near["held_entries"] == far["held_entries"] <= 32
    assert result["windowed"]["far_over_near"]["held_bytes"] == 1
    assert result["unbounded"]["far"]["held_entries"] >= 2 * (200 + 16)
    assert result["unbounded"]["far_over_near"]["held_bytes"] > 3
    assert far["peak_rss_bytes"] >= near["peak_rss_bytes"] > 0
    assert far["step_ms"]["mean"] > 0 and far["cpu_ms"] > 0


def test_a_model_that_has_no_such_positions_is_left_out_without_a_window() -> None:
    bench = tiny_bench(window=16, units=(40, 80))
    bench.model.limit = 50
    result: dict[str, Any] = {}
    run_window(bench, result)
    assert result["windowed"]["far"]["units"] == 80
    assert "position" in result["unbounded"]["skipped"]
