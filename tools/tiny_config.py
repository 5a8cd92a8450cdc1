"""Tiny configurations of whatever transformers has, made by the names of their fields."""

import dataclasses
import re
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

# Names of fields, and what takes the place of a larger number there; the first that fits counts.
SMALL: tuple[tuple[str, int], ...] = (
    (r".*vocab_size.*", 160),
    (r"mamba_d_head|mamba_head_dim", 32),
    (r"(num_)?(hidden_|decoder_|encoder_)?layers|n_layers?|.*_layers", 2),
    (r".*(kv|key_value|k_v)_?(n_)?heads|multi_query_group_num", 2),
    (r".*heads?", 4),
    (r".*experts_per_tok(en)?|moe_topk|moe_k|.*top_?k(_experts)?", 2),
    (r"n_group|topk_group|n_groups|num_expert_groups?", 1),
    (r".*num_.*experts|n_.*experts", 4),
    (r".*head_dim|qk_.*_dim|v_head_dim|kv_channels|.*head_size", 16),
    (r".*lora_rank", 16),
    (r".*(window|window_size|chunk_size)", 32),  # shorter than the streams
    (r".*intermediate_size.*|.*ffn_(hidden_size|dim)|d_ff|n_inner|.*expert_dim", 48),
    (r".*hidden_size.*|(d|dim)_model|n_embd|.*embed_dim|.*embedding_size|.*width|word_.*_dim", 64),
    (r".*(state_size|d_state)", 4),
    (r".*max_position_embeddings|n_positions|n_ctx|max_seq_len", 1024),
    (r"rotary_dim", 8),
)
SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
NUM_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
# What names alone do not tell, by model type.
_MOE = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}
_INDEXED = {
    **{"indexer_n_heads": 4, "indexer_kv_heads": 2, "indexer_head_dim": 16},
    **{"indexer_budget": 32, "indexer_compress_ratio": 2, "ple_embed_dim": 64},
}
_CONVOLUTION = {"layer_types": ["conv", "full_attention"]}
_HEAD = {"head_dim": 16}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SPECIAL: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "deepseek_v2": _MOE,
    "dots1": _MOE,
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hunyuan_v1_dense": _HEAD,
    "hunyuan_v1_moe": _HEAD,
    "lfm2": _CONVOLUTION,
    "lfm2_moe": _CONVOLUTION,
    "mamba2": {"num_heads": 4, "head_dim": 32},
    "ministral": _HEAD,
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp": {"text_config": _INDEXED},
    "qwen4_exp_text": _INDEXED,
    "reformer": {"axial_pos_embds": False},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"]},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"]},
}


def tiny_config(model_type: str) -> PreTrainedConfig:
    """The configuration of a model type, as small as its fields allow; one layer of each type."""
    config_class = CONFIG_MAPPING[model_type]
    return config_class(**small_fields(config_class, SPECIAL.get(model_type, {})))


def small_fields(config_class: type[PreTrainedConfig], special: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments that make a configuration small; `special` ones as they are."""
    default = config_class()
    values, made = vars(default), {}  # some fields differ by layer, and refuse to be asked for
    layers = _layers_kept(values)
    for field in dataclasses.fields(config_class):
        name, value = field.name, values.get(field.name)
        if isinstance(value, PreTrainedConfig):
            inner = small_fields(type(value), special.get(name, {}))
            made[name] = type(value)(**inner)
        elif name in special:
            made[name] = special[name]
        elif name == "is_decoder" and not values.get("is_encoder_decoder"):
            made[name] = True
        elif isinstance(value, list) and layers and len(value) == _num_layers(values):
            made[name] = [value[i] for i in layers]
        elif field.default is not None and type(value) is int:
            made |= _smaller(name, value)
    if layers:
        made |= {name: len(layers) for name in NUM_LAYERS if name in made}
    heads, shared = "num_attention_heads", "num_key_value_heads"
    if heads in made and shared in made and values[heads] == values[shared]:
        made[shared] = made[heads]
    return {**special, **made}


def _smaller(name: str, value: int) -> dict[str, int]:
    if name.endswith("token_id"):  # those of images and sounds stay out of the vocabulary
        return {name: 3} if name in SPECIAL_TOKENS and value > 3 else {}
    small = next((small for pattern, small in SMALL if re.fullmatch(pattern, name)), value)
    return {name: small} if small < value else {}


def _num_layers(values: dict[str, Any]) -> int:
    return next((v for name in NUM_LAYERS if type(v := values.get(name)) is int), 0)


def _layers_kept(values: dict[str, Any]) -> list[int]:
    """The first layer of each type, at least two; none where a configuration names no types."""
    types = values.get("layer_types") or []
    first = sorted(types.index(kind) for kind in set(types))
    return first if len(first) != 1 else [0, 1]
