"""Loading models, and refusing families whose architecture rules out the streaming law."""

import inspect
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from proactivellm.model.backbone import cache_argument, decoder_of, layer_types, rope_tables
from proactivellm.model.precision import (
    NEEDS_TORCHAO,
    check_quantized,
    choose_dtype,
    quantization_config,
)
from proactivellm.model.prompt import StreamSettings, chat_prompt, load_settings

DEFAULT_MODEL = "tatoeba-de-en"


def bundled_models() -> dict[str, Path]:
    """Folders of the models that come with the package, by name."""
    root = Path(str(files("proactivellm"))) / "assets"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}


def load(
    name: str | Path, device: str, dtype: torch.dtype | None, quantization: str = "none"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, StreamSettings | None, Path | None]:
    """Load model, tokenizer and stream settings.

    Args:
        name: bundled name, folder or hub id.
        device: where to put the model.
        dtype: of the weights; None leaves it to `precision.choose_dtype`.
        quantization: one of `precision.QUANTIZATIONS`.

    Returns:
        Model, tokenizer, settings (None if the folder has none), folder (None for a hub id).

    Raises:
        ValueError: naming what is missing and where.
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
    tokenizer = load_tokenizer(source)
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype or "auto", **quantize)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = _first_line(error)
        if isinstance(error, ImportError) and "torchao" in reason:  # its weights are stored so
            reason += f"; {NEEDS_TORCHAO}"
        raise ValueError(f"cannot load a causal LM from {source!r}: {reason}") from None
    if quantize:
        check_quantized(model)
    return model.to(device), tokenizer, load_settings(folder) if folder else None, folder


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Args:
        source: folder or hub id.

    Returns:
        The tokenizer.

    Raises:
        ValueError: if there is none, naming the remedy.
    """
    remedy = "save one there with tokenizer.save_pretrained(folder)"
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"cannot load a tokenizer from {source!r}: {_first_line(error)}; {remedy}"
        ) from None
    known = set(tokenizer.encode("a", add_special_tokens=False)) - {tokenizer.unk_token_id}
    if not known:  # some classes make up a vocabulary where there are no files
        raise ValueError(f"{source} has no tokenizer that knows the letter a; {remedy}")
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


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
