"""A model that is trained from scratch: its tokenizer, its configuration, random weights."""

import inspect
import tempfile

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
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
    known = [*inspect.signature(kind).parameters, *kind.attribute_map, *_ROPE_KEYS]
    for key in backbone.config:
        if key in given:
            raise ValueError(f"backbone.config.{key} follows from the tokenizer: leave it out")
        if key not in known:
            hint = _nearest(key, known)
            raise ValueError(f"backbone.config: {backbone.model_type} has no key '{key}'{hint}")
    try:
        return AutoConfig.for_model(backbone.model_type, **given, **backbone.config)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise ValueError(f"backbone.config does not fit: {' '.join(str(error).split())}") from None


def new_model(backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model of the configured shape with random weights, in fp32; ValueError if there is none."""
    config = new_config(backbone, tokenizer)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"backbone.model_type: {backbone.model_type!r} is not a causal LM")
    try:
        return AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(f"backbone.config does not fit: {' '.join(str(error).split())}") from None


def _nearest(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return f"; {hint}" if hint else ""
