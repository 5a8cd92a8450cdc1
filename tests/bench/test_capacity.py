"""Live sessions: latencies are taken of every unit that allows a token, and late ones count."""

from typing import Any

import pytest
from tests.bench.benches import tiny_bench

from proactivellm.bench import capacity
from proactivellm.bench.capacity import Arrivals, run_capacity


def test_every_number_is_served_in_time() -> None:
    result: dict[str, Any] = {}
    run_capacity(tiny_bench(), result)
    assert [point["sessions"] for point in result["curve"]] == [1, 2]
    assert result["sustained"] == {"p95": 2, "p99": 2}
    for point in result["curve"]:
        assert 0 < point["latency_ms"]["p50"] <= point["latency_ms"]["p99"] < 10_000
        assert point["late"] == 0 and 0 < point["units"] <= point["tokens"]


def test_no_deadline_can_be_too_short() -> None:
    result: dict[str, Any] = {}
    run_capacity(tiny_bench(deadline_ms=1e-6), result)
    (point,) = result["curve"]
    assert point["late"] == point["units"] > 0
    assert result["sustained"] == {"p95": 0, "p99": 0}


def test_the_number_is_doubled_and_then_narrowed_down() -> None:
    good, bad, tried = 0, 1001, []
    while (number := capacity._next_number(good, bad, 1000)) is not None:
        tried.append(number)
        good, bad = (number, bad) if number <= 300 else (good, number)
    assert tried[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert good <= 300 < bad and bad - good <= good // capacity.SHARPNESS
    assert len(tried) < 15
    assert capacity._next_number(1000, 1001, 1000) is None


def test_a_unit_that_is_never_answered_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = tiny_bench(deadline_ms=50.0, unit_ms=20.0, seconds=0.3)
    arrivals = Arrivals(bench.model, bench.options, 1)
    monkeypatch.setattr(arrivals.streams, "step", lambda: None)
    arrivals.run()
    assert arrivals.latency_s and min(arrivals.latency_s) > 0.05
    assert arrivals.tokens == 0


def test_sessions_that_end_are_replaced() -> None:
    bench = tiny_bench(source=4, target=4, k=2, unit_ms=5.0, seconds=0.4)
    arrivals = Arrivals(bench.model, bench.options, 3)
    before = list(arrivals.talks)
    arrivals.run()
    assert len(arrivals.talks) == 3
    assert not any(talk is old for talk, old in zip(arrivals.talks, before, strict=True))
    assert arrivals.tokens > 3 * 4


def test_too_short_to_see_anything() -> None:
    with pytest.raises(ValueError, match="no unit was answered in 0.001 s: give more --seconds"):
        run_capacity(tiny_bench(seconds=0.001, unit_ms=1000.0), {})
