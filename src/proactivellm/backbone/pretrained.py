"""A causal LM and its tokenizer, as transformers loads them from a folder."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from proactivellm.backbone.folder import (
    NEEDS_TRUST,
    broken_json,
    check_json_files,
    read_object,
    refusing,
)
from proactivellm.backbone.precision import check_quantized
from proactivellm.backbone.prompt import StreamSettings, chat_prompt
from proactivellm.backbone.weights import add_adapter, find_base, load_config, load_lm

if TYPE_CHECKING:
    from transformers.utils.quantization_config import QuantizationConfigMixin

_TOKENIZER_FILES = ("*token*", "*vocab*", "*.model", "merges.txt", "*.tiktoken")
_SAVE_ONE = "save one there with tokenizer.save_pretrained(folder)"


def load_pretrained(
    folder: Path,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    quantization: "QuantizationConfigMixin | None" = None,
    trust_remote_code: bool = False,
    adapter: Path | None = None,
    merge: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of a folder, or that of an adapter with the adapter in it, and its tokenizer.

    A tokenizer beside the adapter stands for that of the model. ValueError names what is missing,
    broken or does not fit, and where.

    Args:
        adapter: folder of one to be put into the model.
        merge: add an adapter to the weights.
        dtype: of the weights; None = that of the file.
        quantization: from `precision.quantization_config`.
        trust_remote_code: run code that the folder brings, with all rights of this process.
    """
    # None would wipe the setting of a checkpoint whose weights are stored quantised.
    quantize = {} if quantization is None else {"quantization_config": quantization}
    if adapter is None and (base := find_base(folder, trust_remote_code)):
        folder, adapter = base, folder
    model_config = load_config(folder, trust_remote_code)
    has_own = adapter is not None and has_tokenizer(adapter)
    tokenizer = load_tokenizer(adapter if adapter and has_own else folder, trust_remote_code)
    model = load_lm(
        folder,
        model_config,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        quantize=quantize,
    )
    if adapter is not None:
        model = add_adapter(model, adapter, merge)
    if quantize:
        check_quantized(model)
    return model.to(device), tokenizer


def load_tokenizer(folder: str | Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; ValueError, with the remedy, if there is none or it is broken."""
    folder = Path(folder)
    what = f"cannot load a tokenizer from {str(folder)!r}"
    check_json_files(folder)
    if not has_tokenizer(folder):
        raise ValueError(f"{what}: there is none; {_SAVE_ONE}")

    def cause() -> str | None:
        settings = folder / "tokenizer_config.json"
        if not trust_remote_code and settings.exists() and "auto_map" in read_object(settings):
            return NEEDS_TRUST
        return broken_json(folder / "tokenizer.json")

    with refusing(what, cause):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        known = set(tokenizer.encode("a", add_special_tokens=False)) - {tokenizer.unk_token_id}
    if not known:  # some classes make up a vocabulary where files are missing
        raise ValueError(f"{folder} has no tokenizer that knows the letter a; {_SAVE_ONE}")
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether there are files of a tokenizer in a folder."""
    return any(any(folder.glob(pattern)) for pattern in _TOKENIZER_FILES)


def default_settings(tokenizer: PreTrainedTokenizerBase) -> StreamSettings:
    """Settings of a model that brings none: its chat template, else no prompt."""
    if tokenizer.chat_template:
        return StreamSettings(prompt=chat_prompt(tokenizer))
    return StreamSettings()
