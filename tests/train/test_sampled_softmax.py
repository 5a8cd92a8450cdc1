"""Losses over the tokens of the targets, and others that are drawn."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.families import OBEYING, random_model
from tests.models import tiny_model
from tests.train.learners import make_learner
from tests.train.samples import random_sample, random_schedules
from tests.two_groups import views_of
from torch import Tensor
from transformers import PreTrainedModel

from proactivellm.core.layout import grouped
from proactivellm.core.packing import IGNORE, pack
from proactivellm.train.learner import Learner
from proactivellm.train.recipe import Objectives
from proactivellm.train.sampled_softmax import SampledSoftmax
from proactivellm.train.views import collate


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    rng = np.random.default_rng(3)
    samples = [random_sample(rng, 4, size) for size in (7, 11, 1)]
    return collate([pack(s, views_of(random_schedules(rng, s, 2)), grouped()) for s in samples])


def losses(learner: Learner, batch: dict[str, Tensor]) -> list[Tensor]:
    """The loss, its parts, and the gradients of all that learns."""
    learner.model.zero_grad()
    found = learner(**batch)
    found["loss"].backward()
    return [found["loss"], found["parts"], *(p.grad for p in learner.model.parameters())]


def vocabulary_of(model: PreTrainedModel) -> int:
    return model.get_output_embeddings().out_features


def assert_close(ours: list[Tensor], theirs: list[Tensor], part: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= part * other.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize("family", ["gemma2", "cohere", "granite"])  # cap, factor, divisor
def test_with_every_token_nothing_changes(batch, family):
    learner = make_learner(random_model(family, OBEYING[family]), kl_weight=0.5, kl_top_k=6)
    whole = losses(learner, batch)
    size = vocabulary_of(learner.model)
    learner.softmax = SampledSoftmax(range(size), size, draws=5)
    assert_close(losses(learner, batch), whole, 1e-5)


def test_what_is_drawn_stands_for_what_is_left_out(batch):
    learner = make_learner(tiny_model("qwen3"), kl_weight=0.0)
    size = vocabulary_of(learner.model)
    hidden_RD = torch.randn(6, learner.model.config.hidden_size)
    label_R = torch.tensor([3, 9, 3, 11, 4, 12])
    whole_R = learner.model.get_output_embeddings()(hidden_RD).exp().sum(-1)
    softmax, sums = SampledSoftmax([1, 2, 3], size, draws=size // 4), []
    torch.manual_seed(0)
    for _ in range(400):
        candidates = softmax.draw(label_R)
        sums.append(candidates.projection(learner.model)(hidden_RD).exp().sum(-1))
    sums_NR = torch.stack(sums)
    error_R = sums_NR.std(0) / math.sqrt(len(sums))
    assert (sums_NR.std(0) > 0).all()  # it was drawn
    assert ((sums_NR.mean(0) - whole_R).abs() < 4 * error_R).all()


def test_labels_have_their_column_though_nobody_knew_them(batch):
    learner = make_learner(tiny_model("qwen3"), kl_weight=0.5)
    learner.softmax = SampledSoftmax([1], vocabulary_of(learner.model), draws=0)
    labels = batch["label"][batch["label"] != IGNORE].unique()
    candidates = learner.softmax.draw(labels)
    assert candidates.own_C[candidates.column(labels)].tolist() == labels.tolist()
    found = losses(learner, batch)
    learnt = learner.model.get_output_embeddings().weight.grad.abs().sum(-1).nonzero()[:, 0]
    assert found[0].isfinite() and set(labels.tolist()) <= set(learnt.tolist())


def test_chunks_change_nothing(batch):
    learner = make_learner(tiny_model("qwen3"), kl_weight=0.5, kl_top_k=6)
    learner.softmax = SampledSoftmax(range(20), vocabulary_of(learner.model), draws=30)
    whole = (torch.manual_seed(1), losses(learner, batch))[1]
    learner.rows_per_chunk = lambda num_views, sampled=False: 4
    assert_close((torch.manual_seed(1), losses(learner, batch))[1], whole, 1e-5)


def test_the_control_token_stands_apart(batch):
    model = tiny_model("qwen3")
    size, scores = vocabulary_of(model), []
    for taught, draws in ((range(size), 0), (range(20), 40)):
        learner = make_learner(model, kl_weight=0.5, kl_top_k=6)
        learner.read_id = 17
        scores.append(learner(**batch)["parts"])
        learner.softmax = SampledSoftmax({*taught, 17}, size, draws)
        scores.append(learner(**batch)["parts"])
    assert torch.allclose(scores[0], scores[1], rtol=1e-5)
    assert not torch.allclose(scores[2], scores[3], rtol=1e-5)  # here it is drawn
    torch.testing.assert_close(scores[3], scores[2], rtol=0.2, atol=0.1)


def test_scores_are_over_the_whole_vocabulary(batch):
    learner = make_learner(tiny_model("qwen3"))
    whole = learner(scored=True, **batch)["scores"]
    learner.softmax = SampledSoftmax([1], vocabulary_of(learner.model), draws=3)
    assert torch.equal(learner(scored=True, **batch)["scores"], whole)


def test_smoothing_is_refused():
    both: dict[str, Any] = {"sampled_softmax": 8, "label_smoothing": 0.1}
    with pytest.raises(ValidationError, match="set one of them to 0"):
        Objectives(**both)
