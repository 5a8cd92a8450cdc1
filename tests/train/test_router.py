"""The loss of the router of a mixture of experts: that of transformers, over real tokens alone."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.models import tiny_model
from tests.train.learners import make_learner
from tests.train.samples import random_sample, random_schedules
from tests.two_groups import sample_of, views_of
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from proactivellm.core.layout import grouped
from proactivellm.core.masks import PADDING
from proactivellm.core.packing import IGNORE, pack
from proactivellm.train.block_attention import PACKED_ATTENTION, register
from proactivellm.train.views import collate

SHAPE = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts_per_tok": 2,
    "router_aux_loss_coef": 0.25,
    "output_router_logits": True,
}
FAMILIES = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16, "decoder_sparse_step": 1},
    "olmoe": {"num_experts": 4},
}
ONLY_FULL = {"mslm_weight": 0.0, "kl_weight": 0.0}
PARTS = ["loss_batch", "loss_mslm", "kl"]


def mixture(family: str, **changes) -> PreTrainedModel:
    shape = {**SHAPE, **FAMILIES[family], **changes}
    if family == "olmoe":
        del shape["head_dim"]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    register()
    model.set_attn_implementation(PACKED_ATTENTION)
    return model


def samples(num_partial: int = 1) -> list:
    rng = np.random.default_rng(0)
    made = [random_sample(rng, 7, 6), random_sample(rng, 2, 3)]
    return [pack(one, views_of(random_schedules(rng, one, num_partial)), grouped()) for one in made]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_causal_batch_has_the_loss_of_transformers(family):
    model = mixture(family)
    # A source of nothing: the packed sequence is the target, and the mask causal.
    targets = [[9, 4, 33, 80, 2], [17, 61, 2]]
    packed = [
        pack(sample_of([[], []], [1], t), views_of([[1] * len(t)]), grouped()) for t in targets
    ]
    batch = collate(packed)
    objective = make_learner(model, grouped(), **ONLY_FULL)
    assert objective.part_names == ["loss_batch", "loss_mslm", "router"]
    output = objective(**batch)
    output["loss"].backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.set_attn_implementation("eager")
    # transformers predicts label i + 1 at i: the last input of each is a row of its own.
    ids = torch.nn.functional.pad(batch["input_ids"], (0, 1))
    label = torch.nn.functional.pad(batch["label"], (1, 0), value=IGNORE)
    mask = torch.nn.functional.pad((batch["view"] != PADDING).long(), (0, 1))
    stock = model(ids, attention_mask=mask, labels=label)
    stock.loss.backward()
    torch.testing.assert_close(output["parts"][-1], stock.aux_loss.detach())
    torch.testing.assert_close(output["loss"], stock.loss)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_padding_is_not_routed():
    objective = make_learner(mixture("mixtral"), grouped())
    both = samples()
    alone = [objective(**collate([one]))["parts"][-1] for one in both]
    real = [len(one.input_ids) for one in both]
    together = collate(both)
    longer = {
        name: torch.nn.functional.pad(value, (0, 20), value=PADDING if name == "view" else 0)
        for name, value in together.items()
    }
    longer["label"][:, -20:] = IGNORE
    assert real[0] != real[1]
    torch.testing.assert_close(objective(**longer)["parts"][-1], objective(**together)["parts"][-1])
    assert objective(**collate([both[0]]))["parts"][-1] == alone[0] != alone[1]


@pytest.mark.parametrize("adapters", [False, True])
def test_the_recipe_weighs_it(adapters):
    model = mixture("mixtral", output_router_logits=False)
    if adapters:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    batch = collate(samples())
    without = make_learner(model, grouped())
    assert without.part_names == PARTS  # as transformers: the configuration does not ask for it
    weighed = make_learner(model, grouped(), router_weight=0.5)(**batch)
    expected = without(**batch)["loss"] + 0.5 * weighed["parts"][-1]
    torch.testing.assert_close(weighed["loss"], expected)
    off = make_learner(mixture("mixtral"), grouped(), router_weight=0.0)
    assert off.part_names == PARTS


def test_a_part_of_an_update_weighs_by_its_tokens():
    objective = make_learner(mixture("mixtral"), grouped())
    batch = collate(samples())
    whole = objective(**batch)
    twice = {f"count_{name}": 2.0 * n for name, n in objective.count(batch).items()}
    half = objective(**batch, **twice)
    torch.testing.assert_close(half["loss"], whole["loss"] / 2)
    torch.testing.assert_close(half["parts"], whole["parts"] / 2)


def test_a_model_without_experts_has_no_such_weight():
    with pytest.raises(ValueError, match="'qwen3' has no router.*leave objective.router_weight"):
        make_learner(tiny_model("qwen3"), grouped(), router_weight=0.1)
