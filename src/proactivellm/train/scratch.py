"""A model that is trained from scratch: its tokenizer, its configuration, random weights."""

import inspect
import tempfile
from collections.abc import Collection
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from proactivellm.files.toml import did_you_mean
from proactivellm.tasks.data import texts
from proactivellm.tasks.item import Item
from proactivellm.train.recipe import Backbone
from proactivellm.train.tokenizer import train_tokenizer

# Names that older configuration files use for what is now `rope_parameters`.
_ROPE_KEYS = ("rope_theta", "rope_scaling", "partial_rotary_factor")


def new_tokenizer(backbone: Backbone, items: list[Item]) -> PreTrainedTokenizerBase:
    """A tokenizer trained on the items, which loads again as it is.

    ValueError if the vocabulary is too small, or transformers has a tokenizer class of its own for
    the model type and would load another tokenizer than the one saved.
    """
    tokenizer = train_tokenizer(texts(items), backbone.vocab_size, backbone.split_digits)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        new_config(backbone, tokenizer).save_pretrained(folder)
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if loaded.backend_tokenizer.to_str() != tokenizer.backend_tokenizer.to_str():
        raise ValueError(
            f"backbone.model_type: transformers loads any tokenizer of {backbone.model_type!r} as "
            f"{type(loaded).__name__}, which changes one trained here; take another type, such as "
            "'qwen3' or 'llama'"
        )
    return tokenizer


def new_config(backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The configuration of a model trained from scratch; vocabulary and control tokens are given.

    ValueError if transformers does not know the type or a key, or a value does not fit.
    """
    if backbone.model_type not in CONFIG_MAPPING:
        hint = _nearest(str(backbone.model_type), list(CONFIG_MAPPING.keys()))
        raise ValueError(f"backbone.model_type: unknown {backbone.model_type!r}{hint}")
    kind = CONFIG_MAPPING[backbone.model_type]
    given = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config, of_text = dict(backbone.config), "text_config" in kind.sub_configs
    _check_keys(kind, config, () if of_text else given, "backbone.config")
    for name, part in kind.sub_configs.items():
        if name in config:
            own = given if name == "text_config" else ()
            _check_keys(part, config[name], own, f"backbone.config.{name}")
    if of_text:  # of a model that also sees
        config["text_config"] = {**given, **config.get("text_config", {})}
    else:
        config |= given
    try:
        return AutoConfig.for_model(backbone.model_type, **config)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise ValueError(f"backbone.config does not fit: {' '.join(str(error).split())}") from None


def _check_keys(
    kind: type[PreTrainedConfig], config: dict[str, Any], given: Collection[str], table: str
) -> None:
    """Refuse (ValueError) keys that a configuration lacks, or that follow from the tokenizer."""
    known = [*inspect.signature(kind).parameters, *kind.attribute_map, *_ROPE_KEYS]
    for key in config:
        if key in given:
            raise ValueError(f"{table}.{key} follows from the tokenizer: leave it out")
        if key not in known:
            raise ValueError(f"{table}: {kind.model_type} has no key '{key}'{_nearest(key, known)}")


def new_model(backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model of the configured shape with random weights, in fp32; ValueError if there is none."""
    config = new_config(backbone, tokenizer)
    kinds: list[Any] = [AutoModelForCausalLM]
    if "vision_config" in backbone.config:  # else its own defaults are billions of weights
        kinds.append(AutoModelForImageTextToText)
    kind = next((kind for kind in kinds if type(config) in kind._model_mapping), None)
    if kind is None:
        raise ValueError(f"backbone.model_type: {backbone.model_type!r} is not a causal LM")
    try:
        return kind.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(f"backbone.config does not fit: {' '.join(str(error).split())}") from None


def _nearest(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return f"; {hint}" if hint else ""
