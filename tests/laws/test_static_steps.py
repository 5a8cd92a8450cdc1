"""Steps of fixed shapes write what steps of any shape write; the law, padded by repetition."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from tests.families import OBEYING, save_random
from tests.laws import streams
from tests.laws.streams import TOLERANCE, Recorder, gap
from tests.two_groups import lane_input

from proactivellm.forward.graphs import MAX_NEW
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits

SPECS = ("wait-k:2", "entropy:threshold=4.7,max_lag=6", "attention:threshold=0.2")


def run(model: Recorder, spec: str) -> tuple[list[list[int]], list[list[int]], list[torch.Tensor]]:
    """Five streams of unlike lengths in four lanes, the last one when another has ended."""
    model.logits, targets, delays, logits = {}, [], [], []
    engine = Engine(model, parse_policy(spec), Limits(streams=4))
    sources = [streams.random_units(n, len(model.tokenizer), seed=n) for n in (9, 2, 5, 1, 7)]
    live: dict[int, int] = {}
    waiting = list(range(5))
    found: dict[int, Any] = {}
    while waiting or live:
        while waiting and engine.has_room:
            lane = engine.open()
            live[lane] = waiting.pop(0)
            engine.push(lane, streams.as_units(sources[live[lane]]))
        engine.step()
        for lane, index in list(live.items()):
            state = engine.state(lane)
            if state.finished:
                written = len(state.delays)
                found[index] = state.target, state.delays, model.recorded(written, lane).clone()
                engine.release(lane)
                del live[lane]
    for index in sorted(found):
        for values, value in zip((targets, delays, logits), found[index], strict=True):
            values.append(value)
    return targets, delays, logits


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    ("family", "settings"),
    [("qwen3", {}), ("gemma3_text", {"layout": "interleaved", "phi": 3}), ("mistral", {"phi": 6})],
    ids=str,
)
def test_fixed_shapes_change_nothing(
    folder_of: Callable[..., Path], spec: str, family: str, settings: dict[str, Any]
) -> None:
    model = streams.load(folder_of(family, "word_piece"), **settings)
    expected = run(model, spec)
    model.accelerate("graph")
    assert model.static is not None
    taken = []
    takes = model.static.takes
    model.static.takes = lambda new: taken.append(takes(new)) or taken[-1]  # type: ignore
    actual = run(model, spec)
    assert actual[:2] == expected[:2]
    for ours, theirs in zip(actual[2], expected[2], strict=True):
        assert gap(ours, theirs) <= TOLERANCE
    assert sum(taken) > len(taken) / 2, "or it was not tried"
    model.accelerate(None)
    assert model.static is None


def test_long_steps_and_features_run_as_they_are(folder_of: Callable[..., Path]) -> None:
    model = streams.load(folder_of("qwen3", "word_piece"))
    model.accelerate("graph")
    assert model.static is not None
    from proactivellm.forward.lanes import pack_lanes

    few = lane_input(0, [(1, [5] * (MAX_NEW - 1))], [1], probes=True)
    many = lane_input(0, [(1, [5] * MAX_NEW)], [1], probes=True)
    features = lane_input(0, [(1, torch.zeros(2, 32))], [1], probes=True)
    taken = [
        model.static.takes(pack_lanes([lane], [0], model.layout, [None]))
        for lane in (few, many, features)
    ]
    assert taken == [True, False, False]


def test_families_with_attention_of_their_own_are_refused(tmp_path: Path) -> None:
    save_random("falcon", OBEYING["falcon"], tmp_path)
    model = streams.load(tmp_path)
    with pytest.raises(ValueError, match="'falcon' does its attention by itself"):
        model.accelerate("graph")


def test_steps_that_are_dropped_are_freed_at_once(folder_of: Callable[..., Path]) -> None:
    """A graph that waits for the garbage collector may be freed within the next capture."""
    model = streams.load(folder_of("qwen3", "word_piece"))
    model.accelerate("graph")
    engine = Engine(model, parse_policy(SPECS[0]), Limits(streams=1))
    engine.push(
        engine.open(), streams.as_units(streams.random_units(3, len(model.tokenizer), seed=1))
    )
    while engine.step() is not None:
        pass
    assert model.static is not None
    steps = [ref(step) for kept in model.static._steps.values() for step in kept.values()]
    assert steps
    gc.disable()
    try:
        model.accelerate(None)
        assert [step() for step in steps] == [None] * len(steps)
    finally:
        gc.enable()
