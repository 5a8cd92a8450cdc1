"""Sampling: the distribution of `generate`, and draws that depend on seed and step only."""

from __future__ import annotations

import dataclasses
import unittest.mock
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from proactivellm.session.sampling import Sampling, sample, uniform

SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.8]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 50, 1000]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    seed=st.integers(0, 9),
)


def logits(num_lanes: int, size: int = 60, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(num_lanes, size, generator=generator)


def reference(logits_1V: torch.Tensor, sampling: Sampling, history: list[int]) -> torch.Tensor:
    """What `generate` would draw from, by its own processors."""
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    return processors(torch.tensor([history]), logits_1V.clone()).softmax(-1)


@settings(max_examples=50, deadline=None)
@given(
    samplings=st.lists(SAMPLINGS, min_size=1, max_size=4),
    seed=st.integers(0, 999),
    history=st.lists(st.integers(0, 59), min_size=1, max_size=10),
)
def test_tokens_are_drawn_from_the_distribution_of_generate(
    samplings: list[Sampling], seed: int, history: list[int]
) -> None:
    logits_BV = logits(len(samplings), seed=seed)
    expected = [
        reference(logits_BV[lane : lane + 1], sampling, history)[0].double()
        for lane, sampling in enumerate(samplings)
    ]
    for draw in torch.arange(0.02, 1, 0.12).tolist():
        with unittest.mock.patch("proactivellm.session.sampling.uniform", return_value=draw):
            tokens = sample(logits_BV, samplings, [0] * len(samplings), [history] * len(samplings))
        for probs_V, token in zip(expected, tokens.tolist(), strict=True):
            assert probs_V[token] > 0
            assert probs_V[:token].sum() - 1e-5 <= draw <= probs_V[: token + 1].sum() + 1e-5


@settings(max_examples=40, deadline=None)
@given(
    lanes=st.lists(
        st.one_of(SAMPLINGS, st.just(Sampling())).filter(lambda s: s.repetition_penalty == 1),
        min_size=2,
        max_size=6,
    ),
    step=st.integers(0, 50),
)
def test_a_lane_draws_alike_alone_and_in_any_batch(lanes: list[Sampling], step: int) -> None:
    logits_BV = logits(len(lanes), seed=step)
    steps = [step + lane for lane in range(len(lanes))]
    batched = sample(logits_BV, lanes, steps)
    assert batched.dtype == torch.int64 and batched.shape == (len(lanes),)
    for lane, sampling in enumerate(lanes):
        alone = sample(logits_BV[lane : lane + 1], [sampling], [steps[lane]])
        assert alone.item() == batched[lane].item()
    backwards = sample(logits_BV.flip(0), lanes[::-1], steps[::-1])
    assert backwards.flip(0).tolist() == batched.tolist()


def test_the_draw_depends_on_seed_and_step_and_not_on_global_randomness() -> None:
    logits_BV = torch.zeros(1, 1000)
    draws = {
        (seed, step): sample(logits_BV, [Sampling(temperature=1.0, seed=seed)], [step]).item()
        for seed in range(8)
        for step in range(8)
    }
    assert len(set(draws.values())) > 50  # of 64 over 1000 equally likely tokens
    torch.manual_seed(1)
    before = torch.get_rng_state()
    again = sample(logits_BV, [Sampling(temperature=1.0, seed=3)], [5]).item()
    assert again == draws[3, 5]
    assert torch.equal(torch.get_rng_state(), before)


def test_uniform_is_pinned_and_uniform() -> None:
    # Pinned: saved sessions must draw the same tokens in every later version.
    assert uniform(0, 0) == 0.8336885269740499 and uniform(7, 12) == 0.8262791109127493
    numbers = torch.tensor([uniform(seed, step) for seed in range(40) for step in range(250)])
    assert 0 <= numbers.min() and numbers.max() < 1
    counts = torch.histc(numbers, bins=10, min=0, max=1)
    assert (counts - 1000).abs().max() < 130  # 4.3 standard deviations


def test_frequencies_follow_the_distribution() -> None:
    logits_BV = logits(1, size=6, seed=4)
    sampling = Sampling(temperature=0.8, top_k=4, seed=1)
    expected = reference(logits_BV, sampling, [])[0]
    drawn = sample(logits_BV.expand(4000, -1), [sampling] * 4000, range(4000))
    frequencies = torch.bincount(drawn, minlength=6) / 4000
    assert (frequencies - expected).abs().max() < 0.03
    assert (frequencies[expected == 0] == 0).all() and (expected == 0).sum() == 2


def test_forbidden_tokens_are_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_BV = torch.zeros(1, 5)
    logits_BV[0, [0, 4]] = -torch.inf
    for draw, token in ((0.0, 1), (0.5, 2), (1 - 2**-53, 3), (1.0, 3)):
        monkeypatch.setattr("proactivellm.session.sampling.uniform", lambda *_, d=draw: d)
        assert sample(logits_BV, [Sampling(temperature=1.0)], [0]).item() == token
    assert sample(logits_BV, [Sampling()], [0]).item() == 1


def test_greedy_takes_the_best() -> None:
    logits_BV = logits(3)
    tokens = sample(logits_BV, [Sampling()] * 3, [0, 1, 2])
    assert tokens.tolist() == logits_BV.argmax(-1).tolist()


def test_a_tiny_temperature_does_not_overflow() -> None:
    logits_BV = 1000 * logits(2)
    samplings = [Sampling(temperature=1e-38, top_p=0.9)] * 2
    assert sample(logits_BV, samplings, [0, 0]).tolist() == logits_BV.argmax(-1).tolist()


def test_half_precision_logits_are_sampled_in_full_precision() -> None:
    logits_BV = logits(2).bfloat16()
    samplings = [Sampling(temperature=0.7, top_p=0.8, seed=5)] * 2
    assert torch.equal(
        sample(logits_BV, samplings, [3, 4]), sample(logits_BV.float(), samplings, [3, 4])
    )


def test_repetition_penalty_looks_at_the_history_of_its_own_lane_only() -> None:
    logits_BV = torch.tensor([[2.0, 1.9, -1.0], [2.0, 1.9, -1.0], [2.0, 1.9, -1.0]])
    sampling = Sampling(repetition_penalty=2.0)
    before = logits_BV.clone()
    tokens = sample(logits_BV, [sampling, sampling, Sampling()], [0] * 3, [[0, 0], [2], [0]])
    assert tokens.tolist() == [1, 0, 0]
    assert torch.equal(logits_BV, before), "the caller's logits must stay as they were"
    assert sample(logits_BV, [sampling] * 3, [0] * 3, [[]] * 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_k", -1),
        ("top_k", 2.5),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
    ],
)
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}: give a"):
        Sampling(**{name: value})  # type: ignore[arg-type]


def test_sampling_is_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sampling().seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Sampling(0.5)  # type: ignore[misc]


def test_generation_config_is_honoured() -> None:
    config = GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.1
    )
    expected = Sampling(temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.1, seed=3)
    assert Sampling.from_generation_config(config, seed=3) == expected
    config.do_sample = False
    assert Sampling.from_generation_config(config) == Sampling(repetition_penalty=1.1)
    assert Sampling.from_generation_config(None, seed=2) == Sampling(seed=2)
    assert Sampling.from_generation_config(GenerationConfig()) == Sampling()


def test_unset_values_are_those_of_generate() -> None:
    config = GenerationConfig(do_sample=True)
    assert Sampling.from_generation_config(config) == Sampling(temperature=1.0, top_k=50)


def test_settings_that_are_not_offered_are_warned_about() -> None:
    config = GenerationConfig(do_sample=True, min_p=0.1, num_beams=4, no_repeat_ngram_size=3)
    with pytest.warns(UserWarning, match="num_beams, min_p, no_repeat_ngram_size"):
        Sampling.from_generation_config(config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Sampling.from_generation_config(GenerationConfig(typical_p=1.0, num_beams=1))
