"""Tiny random models that see: the real classes of transformers, what tests run in place of trained
ones.

Import as `from tests.video_models import save_tiny_watcher`.
"""

import json
from pathlib import Path

import torch
from tests.tokenizers import byte_level, qwen_vl
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from proactivellm.backbone.prompt import Prompt, StreamSettings

PIXELS = {"min_pixels": 56 * 56, "max_pixels": 56 * 84}


FAMILIES = ("qwen2_5_vl", "qwen3_vl")


def save_tiny_watcher(
    folder: Path,
    layout: str = "grouped",
    phi: int = 0,
    chats: bool = False,
    family: str = "qwen2_5_vl",
    layers: int = 2,
) -> Path:
    """A folder with a model of random weights, the same on every call.

    One that chats has a tokenizer shaped as the published one, and no settings of a stream.
    """
    tokenizer = qwen_vl() if chats else byte_level()
    size = len(tokenizer)
    text = {
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": size + 4},
        **{"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id},
        "rope_parameters": {
            **{"rope_type": "default", "rope_theta": 10000.0},
            "mrope_section": [1, 1, 2],
        },
    }
    vision = {
        **{"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64},
        "out_hidden_size": 32,
    }
    tokens = {
        **{"image_token_id": size, "video_token_id": size + 1},
        **{"vision_start_token_id": size + 2, "vision_end_token_id": size + 3},
    }
    make = _qwen3_vl if family == "qwen3_vl" else _qwen2_5_vl
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make(text, vision, tokens).eval()
        with torch.no_grad():  # wide, so that what is written depends on what is seen
            for weight in model.parameters():
                weight.copy_(torch.randn_like(weight) * 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    if chats:
        return folder
    if family == "qwen3_vl":
        (folder / "video").mkdir()
        pixels = {**PIXELS, "mean": (0.5,) * 3, "std": (0.5,) * 3}
        (folder / "video" / "video.json").write_text(json.dumps({"pixels": pixels}))
    prompt = Prompt(source_head="see ", source_open="at ", source_tail=" end", target_head="say ")
    StreamSettings(layout=layout, phi=phi, prompt=prompt).save(folder)
    return folder


def _qwen2_5_vl(text: dict, vision: dict, tokens: dict) -> PreTrainedModel:
    windows = {"window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2}
    config = Qwen2_5_VLConfig(text_config=text, vision_config={**vision, **windows}, **tokens)
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl(text: dict, vision: dict, tokens: dict) -> PreTrainedModel:
    """With patches of the size that the other has, so that grids are the same."""
    own = {"patch_size": 14, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    config = Qwen3VLConfig(
        text_config={**text, "head_dim": 8}, vision_config={**vision, **own}, **tokens
    )
    return Qwen3VLForConditionalGeneration(config)
