"""What is asked of a transformers model: layer types, position limits, hidden states, logits."""

import pytest
import torch
from tests.families import LONGROPE, OBEYING, random_model
from tests.models import FAMILIES, tiny_config, tiny_model
from transformers import AutoConfig

from proactivellm.backbone.decoder import Parts, layer_types, position_limit, rope_tables
from proactivellm.core.masks import layer_masks
from proactivellm.forward.watch import watch_attention


def test_layers_without_keys_and_values_are_refused_by_name() -> None:
    config = tiny_config("qwen3")
    config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ValueError, match="'qwen3' has layers of type linear_attention: only"):
        layer_types(config)


def test_position_limits() -> None:
    assert position_limit(tiny_config("llama")) is None
    assert position_limit(tiny_config("gemma3_text")) is None  # a rotary table per layer type
    assert position_limit(AutoConfig.for_model("gpt2", n_positions=50)) == 50
    model_type, config = LONGROPE
    assert position_limit(AutoConfig.for_model(model_type, **config)) == 24
    # Phi-MoE changes its scale there with any kind of scaling.
    scaled = {"rope_type": "linear", "factor": 2.0, "long_mscale": 1.2, "short_mscale": 1.0}
    config = tiny_config("llama")
    config.rope_parameters = {**scaled, "original_max_position_embeddings": 30}
    assert position_limit(config) == 30


def test_rotary_tables_are_listed_whether_one_or_many() -> None:
    assert [table["rope_type"] for table in rope_tables(tiny_config("llama"))] == ["default"]
    assert len(rope_tables(tiny_config("gemma3_text"))) == 2
    assert rope_tables(AutoConfig.for_model("gpt2")) == []


@pytest.mark.parametrize("name", [*FAMILIES, *OBEYING])
def test_hidden_states_and_projection_are_the_logits_of_the_model(name: str) -> None:
    """With the soft cap of Gemma 2, the scales of Cohere and Granite."""
    model = random_model(name, OBEYING[name]) if name in OBEYING else tiny_model(name)
    windows = watch_attention(model).windows
    model.set_attn_implementation("eager")
    ids = torch.randint(3, 100, (1, 9), generator=torch.Generator().manual_seed(1))
    position = torch.arange(9)[None]
    causal = (position[:, :, None] >= position[:, None, :])[:, None]
    masks = layer_masks(causal, position, position, windows)
    with torch.inference_mode():
        expected = model(input_ids=ids).logits[0]
        embeddings = model.get_input_embeddings()(ids)
        parts = Parts(model)
        hidden = parts.decode(embeddings, position, masks).last_hidden_state
        rows = torch.tensor([8, 2])
        actual = parts.project(hidden[0, rows])
    scale = expected.abs().max()
    assert hidden.shape == (1, 9, 32)
    assert (actual - expected[rows]).abs().max() <= 1e-5 * scale
    raw = model.get_output_embeddings()(hidden[0, rows])
    scaled = name in ("gemma2", "cohere", "granite")
    assert ((raw - actual).abs().max() > 1e-2 * scale) == scaled
