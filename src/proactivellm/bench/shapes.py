"""Models of published shapes with random weights: speed does not depend on what the weights are.

In: a name such as `shape:qwen3-8b`, or a configuration without weights. Out: a streaming model,
made directly on its device, whose vocabulary is the words w0, w1, ...
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from proactivellm.backbone.folder import NO_KERNEL, broken_json, refusing, unknown_names
from proactivellm.backbone.precision import choose_dtype, quantization_config
from proactivellm.backbone.prompt import Prompt, StreamSettings
from proactivellm.files.toml import did_you_mean
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.video.pixels import PixelSettings
from proactivellm.modality.video.qwen_vl import FAMILIES, front_end_of, shape_of, video_settings
from proactivellm.modality.video.settings import VideoSettings
from tokenizers import Tokenizer, models, pre_tokenizers

PREFIX = "shape:"
PROMPT = Prompt(source_head="<source>", source_tail="<end>", target_head="<target>")
_WEIGHTS = ("*.safetensors", "*.bin", "*.index.json")


def _rope(sections: list[int]) -> dict[str, Any]:
    """Rotations of three axes; `sections` are how many pairs of a head each of them turns."""
    return {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}


_QWEN: dict[str, Any] = {
    "vocab_size": 151936,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 40960,
}

MAX_PIXELS = 90_000  # of a frame, where the shape is no folder that tells: those of ViCoStream

# From the config.json of Qwen/Qwen3-0.6B, Qwen/Qwen2.5-3B, Qwen/Qwen3-8B and
# Qwen/Qwen2.5-VL-3B-Instruct; 6x256 and 4x128-vl are our own.
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "6x256": {
        "model_type": "qwen3",
        "vocab_size": 8000,
        "num_hidden_layers": 6,
        "hidden_size": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "intermediate_size": 1024,
        "tie_word_embeddings": False,
    },
    "qwen3-0.6b": {
        **_QWEN,
        "model_type": "qwen3",
        "num_hidden_layers": 28,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "tie_word_embeddings": True,
    },
    "qwen2.5-3b": {
        **_QWEN,
        "model_type": "qwen2",
        "num_hidden_layers": 36,
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "intermediate_size": 11008,
        "tie_word_embeddings": True,
        "max_position_embeddings": 32768,
    },
    "qwen3-8b": {
        **_QWEN,
        "model_type": "qwen3",
        "num_hidden_layers": 36,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 12288,
        "tie_word_embeddings": False,
    },
    "4x128-vl": {
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": False,
        "text_config": {
            "vocab_size": 8000,
            "num_hidden_layers": 4,
            "hidden_size": 128,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 512,
            "rope_parameters": _rope([4, 6, 6]),
            "bos_token_id": None,
            "eos_token_id": None,
        },
        "vision_config": {
            "depth": 4,
            "hidden_size": 128,
            "num_heads": 4,
            "intermediate_size": 512,
            "out_hidden_size": 128,
            "fullatt_block_indexes": [3],
            "tokens_per_second": 2,
        },
    },
    "qwen2.5-vl-3b": {
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": True,
        "text_config": {
            "vocab_size": 151936,
            "num_hidden_layers": 36,
            "hidden_size": 2048,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "intermediate_size": 11008,
            "max_position_embeddings": 128000,
            "rope_parameters": _rope([16, 24, 24]),
        },
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "num_heads": 16,
            "intermediate_size": 3420,
            "out_hidden_size": 2048,
            "tokens_per_second": 2,
        },
    },
}


def find_shape(name: str, trust_remote_code: bool = False) -> PreTrainedConfig | None:
    """The configuration that a name stands for, if its weights are to be drawn; else None.

    Args:
        name: `shape:NAME`, a config.json, or a folder that has one and no weights.
        trust_remote_code: run code that the folder brings.

    Raises:
        ValueError: there is no such shape, or the file is no configuration.
    """
    if name.startswith(PREFIX):
        shape = name.removeprefix(PREFIX)
        if shape not in SHAPES:
            hint = did_you_mean(shape, SHAPES)
            remedy = " ".join(filter(None, [hint, f"There are {', '.join(SHAPES)}"]))
            raise ValueError(f"no shape {shape!r}; {remedy}")
        return AutoConfig.for_model(**SHAPES[shape])
    path = Path(name)
    file = path / "config.json" if path.is_dir() else path
    if file.name != "config.json" or not file.is_file():
        return None
    if path.is_dir() and any(any(path.glob(pattern)) for pattern in _WEIGHTS):
        return None
    with refusing(f"{file} is no model configuration", lambda: broken_json(file)):
        return AutoConfig.from_pretrained(file.parent, trust_remote_code=trust_remote_code)


def random_model(
    config: PreTrainedConfig,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    quantization: str = "none",
    seed: int = 0,
    trust_remote_code: bool = False,
) -> StreamingCausalLM:
    """A model with drawn weights and words for tokens, each of them a unit and a decision.

    Args:
        dtype: of the weights; fp32 on CPU and bf16 elsewhere if left out.
        quantization: as of `WeightOptions`.

    Raises:
        ValueError: the shape cannot stream, or there is no such device or precision.
    """
    quantize = quantization_config(quantization, dtype)
    sees = config.model_type in FAMILIES
    if sees and quantize is not None:
        raise ValueError(f"{config.model_type} is made as it is: not quantised")
    auto: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot use --device {device}: {reason}") from None
    dtype = choose_dtype(dtype, device, quantization) or torch.bfloat16
    # On its device from the start: main memory may not hold such a model. The generators of the
    # process are left as they were.
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), place:
        torch.manual_seed(seed)
        with refusing("no model has this shape", lambda: unknown_names(config)):
            model = auto.from_config(
                config, dtype=dtype, trust_remote_code=trust_remote_code, **NO_KERNEL
            )
    if quantize is not None:
        _quantize(model, quantize.quant_type)
    model.generation_config.eos_token_id = None  # that of the shape is but a word here
    settings = StreamSettings(boundary="token", prompt=PROMPT)
    tokenizer = word_tokenizer(config.get_text_config().vocab_size)
    streaming = StreamingCausalLM(model.requires_grad_(False), tokenizer, settings)
    if sees:
        streaming.front_end = front_end_of(model, tokenizer, _video_settings(config))
    return streaming


def _video_settings(config: Any) -> VideoSettings:
    """What the folder of a configuration says of pictures, if it is one that was read."""
    vision, family = config.vision_config, FAMILIES[config.model_type]
    if config.name_or_path:
        return video_settings(Path(config.name_or_path), vision, family)
    shape = shape_of(vision, family) | {"max_pixels": MAX_PIXELS}
    return VideoSettings(pixels=PixelSettings(**shape))


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of one token a word, without an end of text.

    Its vocabulary of `size`: the three marks of the prompt, then w0, w1, ...
    """
    marks = [PROMPT.source_head, PROMPT.source_tail, PROMPT.target_head]
    words = [*marks, *(f"w{i}" for i in range(size - len(marks)))]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=words[-1]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(marks)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def _quantize(model: PreTrainedModel, config: Any) -> None:
    """Quantises as transformers does on loading: linear layers, without the output layer."""
    from torchao.quantization import quantize_

    output = model.get_output_embeddings()

    def chosen(module: torch.nn.Module, name: str) -> bool:
        return isinstance(module, torch.nn.Linear) and module is not output

    quantize_(model, config, filter_fn=chosen)
