"""THE LAW: a session fed unit by unit under g gives the logits of one masked forward under g.

Every family x {wait-k, multinomial, offline} x {grouped, interleaved} x {views packed in one
sequence, separate forwards}, in fp32, with models saved to disk, units of 1 to 3 tokens and windows
shorter than the stream; of the four combinations of {with prompt, without} and {phi 0, 64} each
layout meets two. Each of the chunkings {1, 3, 7, all} meets every family and policy once. All
layouts meet every family; groups beside source and target are in test_groups.py.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.laws import streams
from tests.laws.streams import END, NO_PROMPT, PROMPT, TOLERANCE, Recorder, gap
from tests.models import FAMILIES, SLIDING, WINDOW
from tests.tokenizers import build
from tests.two_groups import views_of
from torch import Tensor

from proactivellm.core import layout as layouts
from proactivellm.core import schedule
from proactivellm.core.layout import grouped, interleaved
from proactivellm.core.packing import pack
from proactivellm.core.schedule import Schedule
from proactivellm.core.unit import Unit
from proactivellm.policy.base import Policy
from proactivellm.policy.fixed import Fixed, Offline, WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session.session import Session
from proactivellm.train import block_attention

VOCAB_SIZE = len(build("byte_level"))
# Where nobody thinks, `interleaved-thoughts` is `interleaved`.
LAYOUTS = [name for name in layouts.LAYOUTS if name != "interleaved-thoughts"]
CHUNKS = (1, 3, 7, None)  # units per push; None = all
NUM_SOURCE, NUM_TARGET = 9, 9  # the end of the target comes on top
K = 3

Folder = Callable[..., Path]
by_token = partial(streams.load, boundary="token")


def streams_under(num_source: int, num_target: int) -> list[tuple[Policy, Schedule]]:
    """Policies, each with the schedule that it makes of a target of N tokens and its end."""
    rng = np.random.default_rng(5)
    trace = schedule.multinomial(num_source, num_target, rng, first_share=(0.1, 0.1))
    assert len(set(trace)) > 2, "the multinomial schedule should have steps"
    return [
        (WaitK(k=K), schedule.wait_k(K, num_source, num_target + 1)),
        (Fixed(trace=tuple(trace)), [*trace, num_source]),
        (Offline(), schedule.offline(num_source, num_target + 1)),
    ]


def make_stream(num_source: int = NUM_SOURCE, num_target: int = NUM_TARGET) -> tuple:
    """Source units and a target that ends."""
    source = streams.random_units(num_source, VOCAB_SIZE, seed=num_source)
    target = [*streams.random_ids(num_target, VOCAB_SIZE, seed=100 + num_target), END]
    return source, target


def streamed(
    model: Recorder, policy: Policy, units: Sequence[Unit], target: Sequence[int], size: int | None
) -> Tensor:
    """Logits [N, V] of a session whose target is forced."""
    model.forced = {0: target}
    model.model.generation_config.max_new_tokens = len(target)
    session = streams.feed(Session(model, policy), units, size)
    assert session.state.finished and not session.state.truncated
    assert session.state.target == [*model.prompt.target_head, *target]
    return model.recorded(len(target))


@pytest.mark.parametrize(
    ("layout", "prompt", "phi"),
    [
        ("grouped", True, 0),
        ("grouped", False, 64),
        ("interleaved", False, 0),
        ("interleaved", True, 64),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_unit_by_unit_equals_one_masked_forward(
    folder_of: Folder,
    family: str,
    layout: str,
    prompt: bool,
    phi: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(block_attention, "MIN_ROWS", 8)  # so that training's attention is in blocks
    texts = PROMPT if prompt else NO_PROMPT
    model = by_token(folder_of(family), texts, layout=layout, phi=phi)
    source, target = make_stream()
    cases = streams_under(len(source), NUM_TARGET)
    sample = streams.sample_of(model.prompt, source, target)
    packed = streams.masked_logits(model, sample, [g for _, g in cases])
    for view, (policy, g) in enumerate(cases):
        separate = streams.masked_logits(model, sample, [g])[0]
        size = CHUNKS[(view + 2 * prompt + bool(phi)) % len(CHUNKS)]
        logits = streamed(model, policy, streams.as_units(source), target, size)
        assert gap(logits, packed[view]) <= TOLERANCE, (policy.spec, size, "packed")
        assert gap(logits, separate) <= TOLERANCE, (policy.spec, size, "separate")


LENGTHS = ((4, 15), (15, 4), (1, 3), (3, 1))  # units, target tokens


@pytest.mark.parametrize(
    ("family", "layout", "lengths"),
    [
        (family, layout, LENGTHS[(row + column) % 2 + shift])
        for row, family in enumerate(FAMILIES)
        for column, layout in enumerate(LAYOUTS)
        for shift in (0, 2)  # a long one and a short one
    ],
)
def test_source_and_target_of_other_lengths(
    folder_of: Folder, family: str, layout: str, lengths: tuple[int, int]
) -> None:
    model = by_token(folder_of(family), layout=layout, phi=3)
    num_source, num_target = lengths
    source, target = make_stream(num_source, num_target)
    diagonal = [min(1 + t * num_source // num_target, num_source) for t in range(num_target)]
    g = [*diagonal, num_source]
    expected = streams.law_logits(model, streams.sample_of(model.prompt, source, target), g)
    for size in (1, None):
        units = streams.as_units(source)
        logits = streamed(model, Fixed(trace=tuple(diagonal)), units, target, size)
        assert gap(logits, expected) <= TOLERANCE


@pytest.mark.parametrize(
    ("family", "layout", "prompt"),
    [
        (family, layout, (row + column) % 2 == 0)
        for row, family in enumerate(FAMILIES)
        for column, layout in enumerate(LAYOUTS)
    ],
)
def test_a_bare_end_marker_brings_the_closing_text_as_a_unit_of_its_own(
    folder_of: Folder, family: str, layout: str, prompt: bool
) -> None:
    """Where the last unit was not known to be the last, what closes the source comes after it."""
    texts = PROMPT if prompt else NO_PROMPT
    model = by_token(folder_of(family), texts, layout=layout, phi=5)
    source, target = make_stream()
    sample = streams.sample_of(model.prompt, source, target, own_tail=True)
    g = schedule.wait_k(K, NUM_SOURCE + 1, NUM_TARGET + 1)
    expected = streams.law_logits(model, sample, g)
    units = [*streams.as_units(source, final=False), Unit.end()]
    for size in CHUNKS[prompt::2]:
        logits = streamed(model, WaitK(k=K), units, target, size)
        assert gap(logits, expected) <= TOLERANCE, size


ADAPTIVE = (
    "entropy:4.7",
    "confidence:threshold=0.07,min_lag=2,max_lag=5",
    "attention:threshold=0.15,frontier=2,max_lag=7",
    "local-agreement:n=2,draft=5",
    "hold-n:n=2,draft=5,max_lag=4",
)


# Two policies for each family and layout, so that each policy meets every family and every layout.
MEETINGS = [
    (family, layout, ADAPTIVE[(row + column + shift) % len(ADAPTIVE)])
    for row, family in enumerate(FAMILIES)
    for column, layout in enumerate(LAYOUTS)
    for shift in (0, 2)
]


@pytest.mark.parametrize(("family", "layout", "spec"), MEETINGS)
def test_what_a_policy_decides_by_itself_is_a_schedule_under_which_the_law_holds(
    folder_of: Folder, family: str, layout: str, spec: str
) -> None:
    """The model writes its own words; its delays are g."""
    model = streams.load(folder_of(family, "word_piece"), layout=layout, phi=6)
    source = streams.random_units(NUM_SOURCE, len(model.tokenizer), seed=2)
    session = streams.feed(Session(model, parse_policy(spec)), streams.as_units(source), 3)
    g, target = session.state.delays, session.state.target[session.state.num_head :]
    schedule.validate(g, NUM_SOURCE)
    expected = streams.law_logits(model, streams.sample_of(model.prompt, source, target), g)
    assert gap(model.recorded(len(target)), expected) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_units_of_features_are_units_of_tokens(folder_of: Folder, family: str) -> None:
    model = by_token(folder_of(family))
    source, target = make_stream()
    units = streams.as_units(source)
    embed = model.model.get_input_embeddings()
    with torch.no_grad():
        features = [embed(torch.tensor(unit.token_ids)) for unit in units]
    as_features = [Unit(features=f, final=u.final) for u, f in zip(units, features, strict=True)]
    expected = streamed(model, WaitK(k=K), units, target, 3)
    assert gap(streamed(model, WaitK(k=K), as_features, target, 3), expected) <= TOLERANCE


def test_each_policy_meets_every_family_and_every_layout() -> None:
    assert {(f, p) for f, _, p in MEETINGS} == {(f, p) for f in FAMILIES for p in ADAPTIVE}
    assert {(y, p) for _, y, p in MEETINGS} == {(y, p) for y in LAYOUTS for p in ADAPTIVE}


class TestTheLawCanFail:
    """What a wrong mask, shift, position or window costs: far more than the tolerance."""

    FAILS = 1e-2
    PHI = 6  # so that what is read last lies inside the windows

    def expected_and_sample(self, model: Recorder) -> tuple[Tensor, tuple]:
        source, target = make_stream()
        logits = streamed(model, WaitK(k=K), streams.as_units(source), target, 3)
        g = schedule.wait_k(K, NUM_SOURCE, NUM_TARGET + 1)
        sample = streams.sample_of(model.prompt, source, target)
        assert gap(logits, streams.masked_logits(model, sample, [g])[0]) <= TOLERANCE
        return logits, (sample, g)

    @pytest.mark.parametrize("layout", ["grouped", "interleaved"])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_without_the_shift_by_one_row(
        self, folder_of: Folder, family: str, layout: str
    ) -> None:
        model = by_token(folder_of(family), layout=layout, phi=self.PHI)
        logits, (sample, g) = self.expected_and_sample(model)
        unshifted = [g[0], *g[:-1]]  # each row sees what was read when its own token was predicted
        assert gap(streams.masked_logits(model, sample, [unshifted])[0], logits) > self.FAILS

    @pytest.mark.parametrize("family", FAMILIES)
    def test_with_another_phi_or_layout(self, folder_of: Folder, family: str) -> None:
        model = by_token(folder_of(family), phi=self.PHI)
        logits, (sample, g) = self.expected_and_sample(model)
        for layout in (grouped(self.PHI + 1), interleaved(self.PHI)):
            model.layout = layout
            assert gap(streams.masked_logits(model, sample, [g])[0], logits) > self.FAILS

    @pytest.mark.parametrize("family", FAMILIES)
    def test_with_one_source_unit_more(self, folder_of: Folder, family: str) -> None:
        model = by_token(folder_of(family), phi=self.PHI)
        logits, (sample, g) = self.expected_and_sample(model)
        ahead = [min(units + 1, NUM_SOURCE) for units in g]
        assert gap(streams.masked_logits(model, sample, [ahead])[0], logits) > self.FAILS

    @pytest.mark.parametrize("family", FAMILIES)
    def test_without_the_windows(self, folder_of: Folder, family: str) -> None:
        model = by_token(folder_of(family), phi=self.PHI)
        logits, (sample, g) = self.expected_and_sample(model)
        positions = pack(sample, views_of([g]), model.layout).position
        assert max(positions) > 2 * WINDOW, "the stream should be longer than the windows"
        model.windows = dict.fromkeys(model.windows)
        unlimited = gap(streams.masked_logits(model, sample, [g])[0], logits)
        assert (unlimited > self.FAILS) == (family in SLIDING)
