"""The output layer over chunks of rows, as part of whole training losses."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.families import OBEYING, random_model
from tests.models import tiny_model
from tests.train.learners import make_learner
from tests.train.samples import random_sample, random_schedules
from tests.two_groups import views_of
from torch import Tensor, nn
from transformers import PreTrainedModel

from proactivellm.core.layout import grouped
from proactivellm.core.packing import pack
from proactivellm.train.head import gathering, projection
from proactivellm.train.views import collate


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    """Packed samples with 19 target rows, of which padding leaves some columns without a label."""
    rng = np.random.default_rng(3)
    samples = [random_sample(rng, 4, size) for size in (7, 11, 1)]
    packed = [pack(s, views_of(random_schedules(rng, s, 2)), grouped()) for s in samples]
    return collate(packed)


def learnt(model: PreTrainedModel, batch: dict[str, Tensor], chunk: int) -> list[Tensor]:
    """The loss and the gradients of all that learns, in chunks of so many rows."""
    learner = make_learner(model, kl_weight=0.5, kl_top_k=6, label_smoothing=0.1)
    learner.rows_per_chunk = lambda num_views: chunk
    model.zero_grad()
    loss = learner(**batch)["loss"]
    loss.backward()
    grown = [p.grad for p in model.parameters() if p.requires_grad]
    assert len(grown) > 4 and all(grad is not None for grad in grown)
    return [loss.detach(), *grown]


def assert_equal(model: PreTrainedModel, batch: dict[str, Tensor], chunk: int = 7) -> None:
    with_chunks, whole = learnt(model, batch, chunk), learnt(model, batch, 1000)
    for ours, theirs in zip(with_chunks, whole, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize("chunk", [1, 7, 18, 19])
def test_chunks_of_tied_weights_change_nothing(batch, chunk):
    assert_equal(tiny_model("qwen3"), batch, chunk)


@pytest.mark.parametrize("family", ["gemma2", "cohere", "granite"])  # cap, factor, divisor
def test_what_families_do_to_logits_stays(batch, family):
    model = random_model(family, OBEYING[family])
    setting = {"gemma2": "final_logit_softcapping", "cohere": "logit_scale"}
    assert getattr(model.config, setting.get(family, "logits_scaling")) not in (None, 1.0)
    whole, bare = learnt(model, batch, 1000)[0], nn.Identity()
    assert_equal(model, batch)
    with pytest.MonkeyPatch.context() as patched:  # it does make a difference here
        patched.setattr("proactivellm.backbone.decoder.Parts.finish", lambda self, x: bare(x))
        assert not torch.isclose(learnt(model, batch, 7)[0], whole, rtol=1e-4)


def test_adapters_of_the_output_layer_learn_in_chunks(batch):
    config = LoraConfig(r=2, target_modules=["lm_head", "q_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    assert_equal(get_peft_model(tiny_model("llama"), config), batch)


def gradients(
    layer: nn.Linear, make: Callable[[nn.Linear], Callable[[Tensor], Tensor]], dtype: torch.dtype
) -> list[Tensor]:
    """Of what three chunks give, one of them empty."""
    torch.manual_seed(1)
    rows = torch.randn(9, layer.in_features, dtype=dtype, requires_grad=True)
    layer.zero_grad()
    project = make(layer)
    logits = torch.cat([project(chunk) for chunk in rows.split([5, 0, 4])])
    logits.float().log_softmax(-1)[:, 3].sum().backward()
    return [logits.detach(), rows.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_one_gradient_is_what_autograd_adds_up(dtype, bias, autocast):
    torch.manual_seed(0)
    layer = nn.Linear(8, 40, bias=bias, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = gradients(layer, gathering, dtype)
        theirs = gradients(layer, lambda layer: layer, dtype)
    tolerance = 1e-5 if dtype == torch.float32 and not autocast else 0.02  # of bf16: 2^-8
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).abs().max() <= tolerance * other.abs().max()


def test_what_is_no_plain_linear_layer_is_called():
    model = tiny_model("llama")
    calls = []
    model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    assert projection(model, in_chunks=True)(torch.zeros(2, 32)).shape == (2, 120)
    assert calls


def test_a_batch_without_target_rows_has_nothing_to_learn(batch):
    nothing = {**batch, "label": torch.full_like(batch["label"], -100)}
    found = learnt(tiny_model("qwen3"), nothing, 7)
    assert all((each == 0).all() for each in found)
