"""Entries in int8: the law holds with keys and values that are rounded, each for itself, and a
stream is itself whatever is done to it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import OBEYING, save_random
from tests.laws import streams
from tests.laws.streams import Recorder, gap
from tests.models import save_tiny
from tests.two_groups import views_of
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from proactivellm.core import schedule
from proactivellm.core.masks import layer_masks, visibility
from proactivellm.core.packing import pack
from proactivellm.forward.int8 import Int8Layer, restored, rounded
from proactivellm.forward.speculation import Lookup
from proactivellm.policy.fixed import WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.state import SessionState
from proactivellm.session.window import Window
from proactivellm.train.views import collate, view_rows

K, NUM_TARGET = 3, 6  # tokens at most
SIZES = (4, 2, 7)  # units of the sources
# Of the largest logit: a value at the border of two steps may fall to either side.
BORDER = 1e-3
Load = Callable[..., Recorder]


class Rounded(DynamicLayer):
    """Gives the attention of one forward what int8 makes of keys and values, and no more."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return tuple(restored(rounded(x), x.dtype) for x in (key_states, value_states))


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Makes models that keep their entries in int8."""
    folders: dict[str, Path] = {}

    def loaded(family: str = "qwen3", **settings: Any) -> Recorder:
        if family not in folders:
            folder = tmp_path_factory.mktemp(family)
            if family in OBEYING:
                folders[family] = save_random(family, OBEYING[family], folder)
            else:
                folders[family] = save_tiny(family, folder, "word_piece")
        model = streams.load(folders[family], **{"boundary": "token", **settings})
        assert model.model.generation_config is not None
        model.model.generation_config.max_new_tokens = NUM_TARGET
        model.compress_cache("int8")
        return model

    return loaded


@torch.inference_mode()
def masked_logits(model: Recorder, sample: Any, g: list[int], layer: type) -> Tensor:
    """Logits [N, V] of one masked forward, with a cache of these layers."""
    batch = collate([pack(sample, views_of([g]), model.layout)])
    position = batch["position"]
    masks = layer_masks(visibility(model.layout, batch, batch), position, position, model.windows)
    cache = Cache(layers=[layer() for _ in range(model.num_heads[0])])
    hidden = model.parts.decode(model.parts.embed(batch["input_ids"]), position, masks, cache)
    return model.project(view_rows(hidden.last_hidden_state, batch)[0][0])


def sources(model: Recorder) -> list[list[Any]]:
    vocabulary = len(model.tokenizer)
    return [streams.as_units(streams.random_units(n, vocabulary, seed=n)) for n in SIZES]


def ended(engine: Engine, units: Sequence[Sequence[Any]]) -> list[SessionState]:
    """The states of streams beside each other, each of them pushed unit by unit."""
    lanes = [engine.open() for _ in units]
    queues = [list(each) for each in units]
    while any(queues):
        for lane, queue in zip(lanes, queues, strict=True):
            engine.push(lane, queue[:1])
            del queue[:1]
        engine.step()
    while engine.step() is not None:
        pass
    engine.check_integrity()
    states = [engine.state(lane) for lane in lanes]
    assert all(state.finished and state.error is None for state in states)
    return states


def written(states: Sequence[SessionState]) -> list[tuple[list[int], list[int]]]:
    return [(state.target, state.delays) for state in states]


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("qwen3", {}),
        ("gemma3_text", {"layout": "interleaved", "phi": 3}),  # windows shorter than the stream
        ("gpt_oss", {}),  # learned sinks, grouped heads
        ("deepseek_v3", {}),  # keys and values are made of entries of another kind
        ("falcon", {}),  # one attention call for all lanes
    ],
    ids=str,
)
def test_a_stream_has_the_logits_of_a_masked_forward_with_rounded_entries(
    load: Load, family: str, settings: dict[str, Any]
) -> None:
    model = load(family, **settings)
    vocabulary = len(model.tokenizer)
    source = streams.random_units(7, vocabulary, seed=1)
    target = [*streams.random_ids(NUM_TARGET - 1, vocabulary, seed=2), streams.END]
    model.forced = {0: target}
    streams.feed(Session(model, WaitK(k=K)), streams.as_units(source), 2)
    actual = model.recorded(NUM_TARGET)
    g = schedule.wait_k(K, len(source), NUM_TARGET)
    sample = streams.sample_of(model.prompt, source, target)
    assert gap(actual, masked_logits(model, sample, g, Rounded)) <= BORDER
    assert gap(actual, masked_logits(model, sample, g, DynamicLayer)) > 2 * BORDER, "or it is exact"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_row_is_rounded_for_itself_by_half_a_step_at_most(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    values = (
        torch.randn(4, 50, 2, 33, generator=generator) * torch.logspace(-3, 3, 50)[:, None, None]
    )
    values[0, 0] = 0.0
    values = values.to(dtype)
    rows = rounded(values)
    assert rows.dtype == torch.int8 and rows.shape[-1] == 33 + 2
    for i in range(50):
        assert torch.equal(rounded(values[:, i : i + 1]), rows[:, i : i + 1])
    actual = restored(rows, dtype)
    assert actual.dtype == dtype
    step = values.float().abs().amax(-1, keepdim=True) / 127
    error = (actual.float() - values.float()).abs()
    # Products are rounded again to the precision that values have anyway.
    assert (error <= 0.505 * step + values.float().abs() * torch.finfo(dtype).eps).all()
    for bad in (torch.nan, torch.inf, -torch.inf):
        values[1, 1, 1, 4] = bad
        again = restored(rounded(values), dtype)
        assert not again[1, 1, 1].isfinite().any()
        assert torch.equal(again[0], actual[0]) and again[1, 1, 0].isfinite().all()


@pytest.mark.parametrize(
    ("family", "layout", "spec"),
    [
        ("qwen3", "grouped", "local-agreement:n=2,draft=3"),
        ("gemma3_text", "interleaved", "entropy:threshold=4.7,max_lag=6"),
        ("falcon", "grouped", "entropy:threshold=4.7,max_lag=6"),
    ],
)
def test_a_stream_beside_others_is_as_alone(
    load: Load, family: str, layout: str, spec: str
) -> None:
    model, policy = load(family, layout=layout), parse_policy(spec)
    units, expected, logits = sources(model), [], []
    for each in units:
        expected += written(ended(Engine(model, policy), [each]))
        logits.append({t: row for (_, t), row in model.logits.items()})
        model.logits = {}
    assert written(ended(Engine(model, policy, Limits(streams=3)), units)) == expected
    for (lane, t), row in model.logits.items():
        assert gap(row, logits[lane][t]) <= BORDER


def test_a_stream_is_itself_whatever_is_done_to_it(load: Load, tmp_path: Path) -> None:
    """It is parked, proposed to, run in fixed shapes, cloned, saved, rolled back."""
    model, policy = load(), parse_policy("local-agreement:n=2,draft=3,max_lag=5")
    units, three = sources(model), Limits(streams=3)
    expected = written(ended(Engine(model, policy, three), units))
    most = max(
        len(target) + sum(len(unit.token_ids) for unit in each)
        for each, (target, _) in zip(units, expected, strict=True)
    )
    small = Engine(model, policy, Limits(streams=3, entries=2 * most))
    assert written(ended(small, units)) == expected
    assert small.cache.num_entries <= 2 * most
    model.speculate(Lookup())
    assert written(ended(Engine(model, policy, three), units)) == expected
    model.speculate(None)
    model.accelerate("graph")
    assert written(ended(Engine(model, policy, three), units)) == expected
    model.accelerate(None)
    session = Session(model, policy)
    session.push(units[2][:4])
    session.save(tmp_path / "s.pt")
    twins = [session.clone(), Session.load(tmp_path / "s.pt", model, policy), session]
    twins[0].rollback()
    for twin in twins:
        streams.feed(twin, units[2][4:], 1)
        assert written([twin.state]) == expected[2:]


def test_a_window_drops_and_feeds_again(load: Load) -> None:
    model, policy = load("llama", boundary="token"), WaitK(k=2)
    units, small = sources(model), Window(source=12, target=10)
    for window in (Window(), small):
        expected = [ended(Engine(model, policy, window=window), [each])[0] for each in units]
        beside = ended(Engine(model, policy, Limits(streams=3), window=window), units)
        assert written(beside) == written(expected)
        assert (beside[2].dropped_units > 0) == (window is small)


def test_an_entry_takes_a_byte_for_each_number_and_two_for_each_head(load: Load) -> None:
    model = load("qwen3")
    engine = Engine(model, WaitK(k=2), sampling=Sampling())
    ended(engine, sources(model)[:1])
    (layers, _), config = model.num_heads, model.model.config
    heads = layers * 2 * config.num_key_value_heads
    assert engine.cache.entry_bytes() == heads * (config.head_dim + 2)
    model.compress_cache(None)
    plain = Engine(model, WaitK(k=2), sampling=Sampling())
    ended(plain, sources(model)[:1])
    assert (
        plain.cache.entry_bytes() == layers * 2 * config.num_key_value_heads * config.head_dim * 4
    )
    for into, kept in ((engine, plain), (plain, engine)):
        with pytest.raises(ValueError, match=r"the snapshot has kv \w+, this cache \w+: give the"):
            into.restore(0, kept.snapshot(0))
    with pytest.raises(ValueError, match="kv 'fp8': choose from none, int8"):
        model.compress_cache("fp8")  # type: ignore[arg-type]


def test_only_what_a_step_looks_at_becomes_numbers(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = load("qwen3"), []

    def unpacked(self: Int8Layer, rows: Tensor, dtype: torch.dtype) -> Tensor:
        seen.append(len(rows))
        return restored(rows, dtype)

    monkeypatch.setattr(Int8Layer, "unpacked", unpacked)
    engine = Engine(model, WaitK(k=2), Limits(streams=2))
    waits, runs = engine.open(), engine.open()
    engine.push(waits, sources(model)[2][:6])
    while engine.step() is not None:
        pass
    seen.clear()
    engine.push(runs, sources(model)[1])
    while engine.step() is not None:
        pass
    held = engine.cache.lengths[runs] + 1  # the last token was fed to ask for the next one
    assert max(seen) == held < engine.cache.lengths[waits]


def test_numbers_that_are_not_finite_end_their_stream_alone(load: Load) -> None:
    model, policy = load("qwen3"), WaitK(k=2)
    units = sources(model)
    expected = written(ended(Engine(model, policy, Limits(streams=3)), units))
    used = {token for each in (units[0], units[2]) for unit in each for token in unit.token_ids}
    used |= {*expected[0][0], *expected[2][0]}
    poison = next(t for unit in units[1] for t in unit.token_ids if t not in used)
    weight = model.parts.embed.weight.detach().clone()  # not that of the output layer
    weight[poison] = torch.nan
    model.parts.embed.weight = torch.nn.Parameter(weight)
    engine = Engine(model, policy, Limits(streams=3))
    lanes = [engine.open() for _ in units]
    for lane, each in zip(lanes, units, strict=True):
        engine.push(lane, each)
    while engine.step() is not None:
        pass
    assert "not finite" in (engine.state(1).error or "")
    assert [written([engine.state(lane)])[0] for lane in (0, 2)] == [expected[0], expected[2]]
