"""Attention in blocks is attention: what is left out was never visible."""

import numpy as np
import pytest
import torch
from tests.models import FAMILIES, tiny_model
from tests.train.learners import make_learner
from tests.train.samples import random_sample, random_schedules
from tests.two_groups import views_of

from proactivellm.core.layout import grouped, interleaved
from proactivellm.core.packing import pack
from proactivellm.train import block_attention
from proactivellm.train.block_attention import PACKED_ATTENTION, register, visible_blocks
from proactivellm.train.views import collate


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, which are 64 at least in earnest."""
    monkeypatch.setattr(block_attention, "MIN_ROWS", 5)


def blocks_of(mask: torch.Tensor) -> list[tuple[list[int], list[int]]]:
    size = range(mask.shape[2])
    return [(list(size)[rows], keys.tolist()) for rows, keys in visible_blocks(mask)]


def test_blocks_hold_the_keys_that_a_row_of_them_sees(monkeypatch):
    monkeypatch.setattr(block_attention, "MIN_ROWS", 2)
    drawn = ["x....", "xx...", "x.x..", "x..x.", "..x.x"]
    mask = torch.tensor([[cell == "x" for cell in row] for row in drawn])[None, None]
    expected = [([0, 1], [0, 1]), ([2, 3], [0, 2, 3]), ([4], [2, 4])]
    assert blocks_of(mask) == expected
    # A key that any sample of the batch sees stays, for all of them.
    other = torch.zeros_like(mask)
    other[..., 3] = True
    assert blocks_of(torch.cat([mask, other]))[0] == ([0, 1], [0, 1, 3])


def test_short_sequences_are_one_block_and_long_ones_few():
    assert visible_blocks(torch.ones(1, 1, 64, 64, dtype=torch.bool)) == []
    assert len(visible_blocks(torch.ones(1, 1, 65, 65, dtype=torch.bool))) == 2
    assert len(visible_blocks(torch.ones(1, 1, 1000, 1000, dtype=torch.bool))) == 6


def test_packed_views_skip_nearly_half_of_the_pairs(monkeypatch):
    monkeypatch.setattr(block_attention, "MIN_ROWS", 12)
    sample = random_sample(np.random.default_rng(0), units=20, tokens=36)
    views = random_schedules(np.random.default_rng(0), sample, 1)
    batch = collate([pack(sample, views_of(views), grouped())])
    size = batch["view"].shape[1]
    seen = []

    def spy(module, query, key, value, mask, **kwargs):
        seen.append(mask.shape[-2] * mask.shape[-1])
        return inner(module, query, key, value, mask, **kwargs)

    inner = block_attention.streaming_attention
    monkeypatch.setattr(block_attention, "streaming_attention", spy)
    model = tiny_model("qwen3")
    register()
    model.set_attn_implementation(PACKED_ATTENTION)
    make_learner(model, grouped())(**batch)
    assert sum(seen) < 0.6 * 2 * size**2  # two layers


@pytest.mark.parametrize("layout", [grouped(), interleaved()], ids=lambda layout: layout.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_change_neither_loss_nor_gradients(small_blocks, family, layout):
    rng = np.random.default_rng(1)
    samples = [random_sample(rng, 9, 8), random_sample(rng, 3, 11, prompt=0)]
    packed = [pack(one, views_of(random_schedules(rng, one, 2)), layout) for one in samples]
    batch = collate(packed)
    register()

    def run(implementation: str) -> list[torch.Tensor]:
        model = tiny_model(family)
        model.set_attn_implementation(implementation)
        output = make_learner(model, layout, kl_weight=1.0)(**batch)
        output["loss"].backward()
        return [output["parts"], *(parameter.grad for parameter in model.parameters())]

    ours, dense = run(PACKED_ATTENTION), run("sdpa")
    scale = max(float(gradient.abs().max()) for gradient in dense[1:])
    torch.testing.assert_close(ours[0], dense[0], rtol=1e-5, atol=1e-6)
    for one, other in zip(ours[1:], dense[1:], strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * scale
