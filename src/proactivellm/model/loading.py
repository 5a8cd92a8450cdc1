"""Loading models, and refusing families whose architecture rules out the streaming law."""

import inspect
from importlib.resources import files
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from proactivellm.model.backbone import cache_argument, decoder_of, layer_types, rope_tables
from proactivellm.model.folder import (
    NEEDS_TRUST,
    broken_json,
    check_json_files,
    read_object,
    refusing,
)
from proactivellm.model.precision import check_quantized, choose_dtype, quantization_config
from proactivellm.model.prompt import StreamSettings, chat_prompt, load_settings
from proactivellm.model.weights import add_adapter, find_base, load_config, load_lm

DEFAULT_MODEL = "tatoeba-de-en"
_TOKENIZER_FILES = ("*token*", "*vocab*", "*.model", "merges.txt", "*.tiktoken")
_SAVE_ONE = "save one there with tokenizer.save_pretrained(folder)"


def bundled_models() -> dict[str, Path]:
    """Folders of the models that come with the package, by name."""
    root = Path(str(files("proactivellm"))) / "assets"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}


def load(
    name: str | Path,
    device: str,
    dtype: torch.dtype | None,
    quantization: str = "none",
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, StreamSettings | None, Path | None]:
    """Load model, tokenizer and stream settings.

    Args:
        name: bundled name, folder or hub id.
        device: where to put the model.
        dtype: of the weights; None leaves it to `precision.choose_dtype`.
        quantization: one of `precision.QUANTIZATIONS`.
        trust_remote_code: run code that a folder brings, with all rights of this process.

    Returns:
        Model, tokenizer, settings (None if the folder has none), folder (None for a hub id).

    Raises:
        ValueError: naming what is missing, broken or does not fit, and where.
    """
    config = quantization_config(quantization)
    # None would wipe the setting of a checkpoint whose weights are stored quantised.
    quantize = {} if config is None else {"quantization_config": config}
    dtype = choose_dtype(dtype, device, quantization)
    bundled = bundled_models()
    folder = bundled.get(str(name), Path(name) if Path(name).is_dir() else None)
    source = str(folder or name)
    if folder is None and (str(name).count("/") != 1 or str(name).startswith((".", "/", "~"))):
        raise ValueError(
            f"no model {str(name)!r}: not a folder here, not a hub id (owner/name), and not "
            f"bundled ({', '.join(bundled) or 'none'})"
        )
    settings = load_settings(folder) if folder else None
    base = find_base(source)
    model_config = load_config(base or source, trust_remote_code)
    tokenizer = load_tokenizer(source, trust_remote_code)
    model = load_lm(
        base or source,
        model_config,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        quantize=quantize,
    )
    if base:
        add_adapter(model, source)
    if quantize:
        check_quantized(model)
    return model.to(device), tokenizer, settings, folder


def load_tokenizer(source: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Args:
        source: folder or hub id.
        trust_remote_code: run code that the source brings.

    Returns:
        The tokenizer.

    Raises:
        ValueError: if there is none, naming the remedy, or it is broken.
    """
    what, folder = f"cannot load a tokenizer from {source!r}", Path(source)
    if folder.is_dir():
        check_json_files(folder)
        if not any(any(folder.glob(pattern)) for pattern in _TOKENIZER_FILES):
            raise ValueError(f"{what}: there is none; {_SAVE_ONE}")

    def cause() -> str | None:
        settings = folder / "tokenizer_config.json"
        if not trust_remote_code and settings.exists() and "auto_map" in read_object(settings):
            return NEEDS_TRUST
        return broken_json(folder / "tokenizer.json")

    with refusing(what, cause):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        known = set(tokenizer.encode("a", add_special_tokens=False)) - {tokenizer.unk_token_id}
    if not known:  # some classes make up a vocabulary where files are missing
        raise ValueError(f"{source} has no tokenizer that knows the letter a; {_SAVE_ONE}")
    return tokenizer


def default_settings(tokenizer: PreTrainedTokenizerBase) -> StreamSettings:
    """Settings of a model that brings none: its chat template, else no prompt.

    Args:
        tokenizer: of the model.

    Returns:
        The settings.
    """
    if tokenizer.chat_template:
        return StreamSettings(prompt=chat_prompt(tokenizer))
    return StreamSettings()


def check_family(model: PreTrainedModel) -> None:
    """Refuse families whose architecture rules out the streaming law.

    Args:
        model: a loaded model.

    Raises:
        ValueError: saying why.
    """
    config = model.config.get_text_config()
    name = f"model type {config.model_type!r} cannot stream"
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(
            f"{name}: it is an encoder-decoder, and only decoder-only models are taken"
        )
    layer_types(model.config)
    decoder = decoder_of(model)
    accepted = inspect.signature(decoder.forward).parameters
    for argument, why in {
        "position_ids": "it has no position ids (recurrent state or ALiBi), so that source and "
        "target cannot be placed independently",
        "inputs_embeds": "it takes no input embeddings",
    }.items():
        if argument not in accepted:
            raise ValueError(f"{name}: {why}")
    if cache_argument(decoder) is None:
        raise ValueError(
            f"{name}: it keeps no keys and values per token, so that a probe cannot be taken back"
        )
    if getattr(config, "alibi", False):
        raise ValueError(
            f"{name}: it has ALiBi, whose biases depend on the order of arrival, in place of "
            "position ids"
        )
    if "local" in getattr(config, "attention_layers", ()):  # GPT-Neo
        raise ValueError(f"{name}: its local attention counts tokens in their order of arrival")
    if getattr(config, "attn_temperature_tuning", False):  # Llama 4
        raise ValueError(
            f"{name}: the temperature of its attention counts tokens in their order of arrival; "
            "where streams are short, set attn_temperature_tuning to false in its config.json"
        )
    if any(table.get("rope_type") == "dynamic" for table in rope_tables(config)):
        raise ValueError(
            f"{name} with dynamic rotary scaling: keys already cached would need other angles as "
            "the stream grows; set a static rope type in its config.json"
        )
