"""Tiny models of families that the law's matrix leaves out: those that obey, and those refused."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tests.tokenizers import build
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCAB_SIZE = len(build("byte_level"))
_COMMON = {"vocab_size": VOCAB_SIZE, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_SHAPE = {
    **_COMMON,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_GPT = {**_COMMON, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_SMALL = {**_COMMON, "hidden_size": 32, "num_hidden_layers": 2}
_LONG = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
_DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
_FULL = {"rope_type": "default", "rope_theta": 10000.0}

# Families with something of their own, which obey.
OBEYING: dict[str, dict[str, Any]] = {
    "gpt2": _GPT,  # learned positions
    "opt": {**_SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32},  # learned, with an offset
    "gemma2": {**_SHAPE, "head_dim": 8, "num_key_value_heads": 2, "sliding_window": 6},  # soft caps
    "gpt_oss": {  # learned attention sinks
        **_SHAPE,
        **{"head_dim": 8, "num_key_value_heads": 2, "sliding_window": 6},
        **{"num_local_experts": 2, "num_experts_per_tok": 1},
    },
    "cohere": {**_SHAPE, "num_key_value_heads": 2},  # scaled logits, parallel blocks
    "granite": {**_SHAPE, "num_key_value_heads": 2, "logits_scaling": 3.0},
    "deepseek_v3": {  # latent attention
        **{**_SHAPE, "num_key_value_heads": 4},
        **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8},
        **{"v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1},
        **{"topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1},
    },
    "falcon": {k: v for k, v in _SHAPE.items() if k != "intermediate_size"},  # own attention
    "gptj": {**_GPT, "rotary_dim": 4},  # own attention that adds its mask (before 5.24)
    "xglm": {**_COMMON, "d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48},
    "nemotron": {**_SHAPE, "num_key_value_heads": 2},  # hands no arguments to its attention
    "afmoe": {  # its gate takes an attention output that lies in one piece
        **_SHAPE,
        **{"head_dim": 8, "num_key_value_heads": 2, "sliding_window": 6, "num_dense_layers": 1},
        **{"moe_intermediate_size": 16, "num_experts": 2, "num_experts_per_tok": 1},
        **{"layer_types": ["sliding_attention", "full_attention"]},
    },
    "llama4_text": {  # finds itself as its decoder
        **_SHAPE,
        **{"num_key_value_heads": 2, "num_local_experts": 2, "intermediate_size_mlp": 32},
        **{"layer_types": ["full_attention"] * 2, "attn_temperature_tuning": False},
    },
    "granitemoehybrid": {  # a family of hybrids, of attention alone
        **_SHAPE,
        **{"num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1},
        **{"shared_intermediate_size": 32, "mamba_n_heads": 4, "mamba_d_head": 16},
        **{"layer_types": ["attention"] * 2},
    },
    "llama": {**_SHAPE, "sliding_window": 4},  # left over: the class has no windows
}

# Families that cannot obey, with what the error has to say.
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "bloom": ("bloom", {**_COMMON, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "ALiBi"),
    "mpt": ("mpt", {**_COMMON, "d_model": 32, "n_layers": 2, "n_heads": 4}, "ALiBi"),
    "falcon-alibi": ("falcon", {**OBEYING["falcon"], "alibi": True}, "it has ALiBi"),
    "mamba": ("mamba", {**_SMALL, "state_size": 4}, "linear_attention.*recurrent state"),
    "rwkv": ("rwkv", {**_SMALL, "attention_hidden_size": 32}, "recurrent state"),
    "qwen3-next": (
        "qwen3_next",
        {
            **_SHAPE,
            **{"head_dim": 8, "num_key_value_heads": 2, "linear_num_value_heads": 2},
            **{"linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
            **{"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8},
            **{"shared_expert_intermediate_size": 8},
            **{"layer_types": ["linear_attention", "full_attention"]},
        },
        "layers of type linear_attention.*recurrent state",
    ),
    "falcon-h1": (
        "falcon_h1",
        {
            **_SHAPE,
            **{"num_key_value_heads": 2, "mamba_d_ssm": 32, "mamba_n_heads": 4},
            **{"mamba_d_head": 8, "mamba_d_state": 4},
        },
        "layers of type hybrid",
    ),
    "lfm2": (
        "lfm2",
        {**_SHAPE, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
        "layers of type conv",
    ),
    "llama4": (
        "llama4_text",
        {
            **_SHAPE,
            **{"num_key_value_heads": 2, "num_local_experts": 2, "intermediate_size_mlp": 32},
            **{"layer_types": ["chunked_attention", "full_attention"]},
        },
        "layers of type chunked_attention",
    ),
    "gpt-neo": (
        "gpt_neo",
        {
            **_COMMON,
            **{"hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 6},
            **{"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64},
        },
        "local attention counts tokens in their order of arrival",
    ),
    "dynamic rope": (
        "llama",
        {**_SHAPE, "rope_parameters": _DYNAMIC},
        "dynamic rotary scaling.*set a static rope type",
    ),
    "dynamic rope of one layer type": (
        "gemma3_text",
        {
            **_SHAPE,
            **{"head_dim": 8, "num_key_value_heads": 2},
            **{"layer_types": ["sliding_attention", "full_attention"]},
            "rope_parameters": {"sliding_attention": _FULL, "full_attention": _DYNAMIC},
        },
        "dynamic rotary scaling",
    ),
    "llama4-temperature": (
        "llama4_text",
        {**OBEYING["llama4_text"], "attn_temperature_tuning": True},
        "counts tokens in their order of arrival.*set attn_temperature_tuning to false",
    ),
    "both directions": (
        "gemma3_text",
        {**_SHAPE, "head_dim": 8, "num_key_value_heads": 2, "use_bidirectional_attention": True},
        "neither all earlier positions nor a window of them",
    ),
    "encoder": ("bert", _SHAPE, "neither all earlier positions nor a window of them"),
    "own head": (
        "bert",
        {**_SHAPE, "is_decoder": True},
        "more than a causal decoder and an output",
    ),
}

LONGROPE = (
    "phi3",
    {**_SHAPE, "original_max_position_embeddings": 24, "rope_scaling": _LONG},
)


def random_model(model_type: str, config: dict[str, Any]) -> PreTrainedModel:
    """A model with weights so wide that a wrong mask or position shows in its logits."""
    transformers.logging.set_verbosity_error()
    made = AutoConfig.for_model(model_type, **config)
    model = AutoModelForCausalLM.from_config(made, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.2 * noise if parameter.dim() == 1 else 0.25 * noise)
    return model


def save_random(model_type: str, config: dict[str, Any], folder: Path) -> Path:
    """Such a model on disk, with a tokenizer."""
    random_model(model_type, config).save_pretrained(folder)
    build("byte_level").save_pretrained(folder)
    return folder


def additive(masks: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """Masks for eager attention, which adds them to its scores."""
    if isinstance(masks, dict):
        return {kind: additive(mask) for kind, mask in masks.items()}
    return torch.zeros(masks.shape).masked_fill(~masks, torch.finfo(torch.float32).min)
