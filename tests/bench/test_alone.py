"""One stream: the counts that do not depend on the machine, and the same tokens as the baseline."""

from typing import Any

from tests.bench.benches import tiny_bench
from tests.models import tiny_model
from tests.tokenizers import build

from proactivellm.bench.alone import run_alone, write_alone
from proactivellm.bench.workload import Endless, drawn_work
from proactivellm.forward.causal_lm import StreamingCausalLM


def test_counts_of_sixty_units_and_sixty_tokens() -> None:
    result: dict[str, Any] = {}
    run_alone(tiny_bench(source=60, target=60, k=5, repeats=1), result)
    runs = result["short"]["runs"]
    assert result["short"]["same_tokens_as_b"] is True
    assert {run["tokens"] for run in runs.values()} == {60}
    assert {name: run["forwards"] for name, run in runs.items()} == {
        "ours": 4 + 60,  # four units before any token is allowed, then a forward per token
        "a": 60,
        "b": 177,
        "c": 60,
    }
    assert runs["ours"]["fed"] == runs["c"]["fed"] == 3 + 60 + 59
    assert runs["b"]["fed"] == 3 + 60 + 119
    assert runs["a"]["fed"] > 3000
    assert "long" not in result


def test_repeats_rates_and_the_long_stream() -> None:
    result: dict[str, Any] = {}
    calls = []
    bench = tiny_bench(long=20, repeats=3)
    object.__setattr__(bench, "progress", lambda *call: calls.append(call))
    run_alone(bench, result)
    for size, names, repeats in (("short", "abc", 3), ("long", "a", 2)):
        part = result[size]
        assert part["times_faster_than"].keys() == set(names)
        for name in names:
            run, ours = part["runs"][name], part["runs"]["ours"]
            assert len(run["wall_s"]) == len(run["cpu_s"]) == repeats
            ratio = ours["tokens_per_cpu_s"] / run["tokens_per_cpu_s"]
            assert part["times_faster_than"][name] == ratio
    ours = result["short"]["runs"]["ours"]
    assert 0 < ours["step_ms"]["p50"] <= ours["step_ms"]["p99"]
    assert calls[-1] == ("alone 20/20", 4, 4)


def test_a_unit_is_answered_in_one_step_and_the_last_in_several() -> None:
    model = tiny_bench().model
    run = write_alone(model, next(drawn_work(model, 10, 12, 0)), k=4)
    assert len(run.step_s) == run.forwards == 3 + 12
    assert len(run.unit_s) == 7  # units 4 to 10
    assert len(set(run.tokens)) > 3  # it does not repeat itself
    short = write_alone(model, next(drawn_work(model, 10, 2, 0)), k=4)
    assert short.tokens == run.tokens[:2] and short.forwards == 3 + 2


def test_a_baseline_that_the_model_rules_out_is_left_out() -> None:
    tokenizer = build("byte_level")
    family = StreamingCausalLM(tiny_model("mistral", vocab_size=len(tokenizer)), tokenizer)
    bench = tiny_bench(repeats=1)
    object.__setattr__(bench, "model", Endless(family))
    result: dict[str, Any] = {}
    run_alone(bench, result)
    assert "sliding window" in result["short"]["runs"]["b"]["skipped"]
    assert result["short"]["times_faster_than"].keys() == {"a", "c"}
    assert "same_tokens_as_b" not in result["short"]
