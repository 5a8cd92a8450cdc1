"""Packed views: equal to separate forwards, losses and gradients; blind to what they must not see.

With random weights of this width a wrong mask entry or position moves losses in the second digit.
"""

import gc
import weakref

import numpy as np
import pytest
import torch
from tests.models import FAMILIES, SLIDING, tiny_model
from tests.train.learners import make_learner
from tests.train.reference import grouped_logits, interleaved_logits, reference_losses
from tests.train.samples import random_sample, random_schedules
from tests.two_groups import head_of, target_of, units_of, views_of

from proactivellm.core.layout import Layout, grouped, interleaved
from proactivellm.core.masks import PADDING
from proactivellm.core.packing import IGNORE, Sample, pack
from proactivellm.core.schedule import Schedule
from proactivellm.forward.watch import watch_attention
from proactivellm.train.outputs import Outputs
from proactivellm.train.views import collate, packed_output, view_rows

LAYOUTS = {"phi-0": grouped(), "phi-64": grouped(64), "interleaved": interleaved()}
ALL_SLIDING = ("mistral", "phi3")  # families without any layer that sees the whole stream
# Every part of the objective weighs enough for its gradient to show in the sum.
KEYS = {
    "batch_weight": 1.0,
    "mslm_weight": 0.7,
    "kl_weight": 0.9,
    "kl_top_k": 9,
    "label_smoothing": 0.1,
}


def a_batch(seed: int, num_partial: int) -> tuple[list[Sample], list[list[Schedule]]]:
    """Samples of different lengths, so that packing them needs padding."""
    rng = np.random.default_rng(seed)
    samples = [
        random_sample(rng, 7, 6),
        random_sample(rng, 2, 9, prompt=0),
        random_sample(rng, 1, 1),
    ]
    return samples, [random_schedules(rng, sample, num_partial) for sample in samples]


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("num_partial", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_loss_and_gradients_are_those_of_separate_forwards(family, layout, num_partial):
    model = tiny_model(family)
    samples, schedules = a_batch(seed=1, num_partial=num_partial)
    packed = [pack(s, views_of(g), layout) for s, g in zip(samples, schedules, strict=True)]
    output = make_learner(model, layout, **KEYS)(**collate(packed))
    ours = gradients(model, output["loss"])

    def one_view(sample: Sample, g: Schedule) -> torch.Tensor:
        if layout.name == "interleaved":
            return interleaved_logits(model, sample, g)
        return grouped_logits(model, sample, g, layout.offset[-1])

    logits = [
        [one_view(sample, g[view]) for sample, g in zip(samples, schedules, strict=True)]
        for view in range(num_partial + 1)
    ]
    parts = reference_losses(logits, [list(target_of(s)) for s in samples], 9, smoothing=0.1)
    theirs = gradients(model, parts[0] + 0.7 * parts[1] + 0.9 * parts[2])

    torch.testing.assert_close(output["parts"], parts.detach(), rtol=1e-5, atol=1e-6)
    # Nothing compared here is a zero, unless no layer sees from a position 64 back to the source.
    blind = family in ALL_SLIDING and layout.offset[-1] == 64
    assert (parts[2] > 1e-3) != blind
    scale = max(float(gradient.abs().max()) for gradient in theirs.values())
    gaps = {name: float((ours[name] - theirs[name]).abs().max()) / scale for name in theirs}
    worst = max(gaps, key=gaps.__getitem__)
    assert gaps[worst] <= 1e-5, f"{worst}: {gaps[worst]:.1e} of the gradient scale"
    assert min(float(gradient.abs().max()) for gradient in theirs.values()) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_offline_with_phi_after_the_source_is_the_stock_model(family):
    model = tiny_model(family)
    sample = random_sample(np.random.default_rng(2), 9, 8)
    source = [token for unit in units_of(sample) for token in unit]
    layout = grouped(phi=len(source))
    batch = collate([pack(sample, views_of([[sample.num_units] * len(target_of(sample))]), layout)])
    rows, _ = view_rows(
        packed_output(model, batch, layout, watch_attention(model).windows).last_hidden_state, batch
    )
    stock = model(torch.tensor([[*source, *head_of(sample), *target_of(sample)[:-1]]])).logits
    ours = model.get_output_embeddings()(rows[0])
    gap = (ours - stock[0, -len(target_of(sample)) :]).abs().max() / stock.abs().max()
    assert gap <= 1e-5


def hidden_of(model: torch.nn.Module, layout: Layout, batch: dict) -> torch.Tensor:
    with torch.no_grad():
        return packed_output(model, batch, layout, watch_attention(model).windows).last_hidden_state


def changed_rows(model: torch.nn.Module, layout: Layout, batch: dict, at: list[int]) -> list[int]:
    """Rows of sample 0 whose hidden state is not bit for bit the same after a change of tokens."""
    other = {name: value.clone() for name, value in batch.items()}
    other["input_ids"][0, at] = (other["input_ids"][0, at] + 17) % 120
    gap = (hidden_of(model, layout, batch) - hidden_of(model, layout, other)).abs().amax(-1)
    return gap[0].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("layout", [grouped(), grouped(64)], ids=["phi-0", "phi-64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_source_unit_changes_exactly_the_rows_that_have_read_it(family, layout):
    model = tiny_model(family)
    sample = random_sample(np.random.default_rng(3), units=4, tokens=6)
    head = len(head_of(sample))
    schedules = [[4] * 6, [1, 1, 2, 2, 4, 4], [1, 3, 3, 3, 3, 4]]
    batch = collate([pack(sample, views_of(schedules), layout)])
    unit_of = [u for u, unit in enumerate(units_of(sample)) for _ in unit]
    for unit in range(1, 5):
        at = [i for i, u in enumerate(unit_of) if u == unit]
        expected = [i for i in range(len(unit_of)) if i >= at[0]]
        first_row = len(unit_of)
        for g in schedules:
            units_read = [g[0]] * (head - 1) + g
            expected += [first_row + i for i, read in enumerate(units_read) if read >= unit]
            first_row += len(units_read)
        changed = changed_rows(model, layout, batch, at)
        assert set(changed) <= set(expected)
        if family not in SLIDING:  # there a window may hide what the schedule shows
            assert changed == expected
        blind = family in ALL_SLIDING and layout.offset[-1] == 64
        assert any(row >= len(unit_of) for row in changed) != blind  # more than source rows


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_views_do_not_see_each_other(family, layout):
    model = tiny_model(family)
    rng = np.random.default_rng(4)
    sample = random_sample(rng, units=5, tokens=7)
    batch = collate([pack(sample, views_of(random_schedules(rng, sample, 2)), layout)])
    for view in range(3):
        own = (batch["view"][0] == view) & (batch["group"][0] == layout.index["target"])
        at = own.nonzero()[:, 0].tolist()
        changed = changed_rows(model, layout, batch, at)
        assert set(at) <= set(changed)
        assert (batch["view"][0, changed] == view).all()


def test_outputs_do_not_outlive_the_forward(monkeypatch):
    learner, made = make_learner(tiny_model("qwen3")), []
    learner.rows_per_chunk = lambda num_views: 4  # so that rows are computed again for the gradient
    init = Outputs.__init__

    def noted(self, *args):
        init(self, *args)
        made.append(weakref.ref(self))

    monkeypatch.setattr(Outputs, "__init__", noted)
    samples, schedules = a_batch(seed=5, num_partial=1)
    packed = [pack(s, views_of(g), grouped()) for s, g in zip(samples, schedules, strict=True)]
    gc.disable()
    try:
        loss = learner(**collate(packed))["loss"]
        assert made and made[0]() is None
    finally:
        gc.enable()
    loss.backward()


def test_padding_and_neighbours_change_nothing():
    model = tiny_model("qwen3")
    samples, schedules = a_batch(seed=5, num_partial=1)
    packed = [pack(s, views_of(g), grouped()) for s, g in zip(samples, schedules, strict=True)]
    together = hidden_of(model, grouped(), collate(packed))
    assert len({len(one.input_ids) for one in packed}) > 1
    for row, one in enumerate(packed):
        alone = hidden_of(model, grouped(), collate([one]))[0]
        gap = (together[row, : len(alone)] - alone).abs().max() / alone.abs().max()
        assert gap <= 1e-5


def test_collate_pads_on_the_right():
    samples, schedules = a_batch(seed=6, num_partial=1)
    packed = [pack(s, views_of(g), grouped()) for s, g in zip(samples, schedules, strict=True)]
    batch = collate(packed)
    length = max(len(one.input_ids) for one in packed)
    assert {value.shape for value in batch.values()} == {(3, length)}
    short = len(packed[2].input_ids)
    assert batch["input_ids"][2, :short].tolist() == packed[2].input_ids
    assert (batch["view"][2, short:] == PADDING).all()
    assert (batch["label"][2, short:] == IGNORE).all()


def test_view_rows_line_up_across_views_and_samples():
    samples, schedules = a_batch(seed=7, num_partial=2)
    packed = [pack(s, views_of(g), grouped()) for s, g in zip(samples, schedules, strict=True)]
    batch = collate(packed)
    # The "hidden state" of a row is its own label, so that what is gathered can be read off.
    rows, label = view_rows(batch["label"][..., None].float(), batch)
    assert rows.shape == (*label.shape, 1) and len(label) == 3
    assert (rows[..., 0] == label).all()
    assert label[0].tolist() == [token for sample in samples for token in target_of(sample)]
