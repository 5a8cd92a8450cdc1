"""Loading models, and refusing those that cannot obey the streaming law."""

import inspect
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from proactivellm.model.backbone import hidden_states, layer_windows, project, rope_tables
from proactivellm.model.masks import layer_masks
from proactivellm.model.probe import ATTENTION
from proactivellm.model.prompt import StreamSettings, chat_prompt, load_settings

if TYPE_CHECKING:
    from proactivellm.model.causal_lm import StreamingCausalLM

DEFAULT_MODEL = "tatoeba-de-en"
LAW_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}


def bundled_models() -> dict[str, Path]:
    """Folders of the models that come with the package, by name."""
    root = Path(str(files("proactivellm"))) / "assets"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}


def load(
    name: str | Path, device: str, dtype: torch.dtype | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, StreamSettings | None, Path | None]:
    """Load model, tokenizer and stream settings.

    Args:
        name: bundled name, folder or hub id.
        device: where to put the model.
        dtype: of the weights; None = fp32 on CPU, that of the file elsewhere.

    Returns:
        Model, tokenizer, settings (None if the folder has none), folder (None for a hub id).

    Raises:
        ValueError: naming what is missing and where.
    """
    bundled = bundled_models()
    folder = bundled.get(str(name), Path(name) if Path(name).is_dir() else None)
    source = str(folder or name)
    if folder is None and (str(name).count("/") != 1 or str(name).startswith((".", "/", "~"))):
        raise ValueError(
            f"no model {str(name)!r}: not a folder here, not a hub id (owner/name), and not "
            f"bundled ({', '.join(bundled) or 'none'})"
        )
    if dtype is None and torch.device(device).type == "cpu":
        dtype = torch.float32
    tokenizer = load_tokenizer(source)
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype or "auto")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load a causal LM from {source!r}: {_first_line(error)}") from None
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
    if not tokenizer.encode("a", add_special_tokens=False):  # some classes load from nothing
        raise ValueError(f"{source} has no tokenizer; {remedy}")
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
    layer_windows(model.config)
    decoder = model.get_decoder()
    accepted = inspect.signature(decoder.forward).parameters
    for argument, why in {
        "position_ids": "it has no position ids (recurrent state or ALiBi), so that source and "
        "target cannot be placed independently",
        "past_key_values": "it keeps no keys and values per token, so that a probe cannot be "
        "taken back",
        "inputs_embeds": "it takes no input embeddings",
    }.items():
        if argument not in accepted:
            raise ValueError(f"{name}: {why}")
    if any(table.get("rope_type") == "dynamic" for table in rope_tables(config)):
        raise ValueError(
            f"{name} with dynamic rotary scaling: keys already cached would need other angles as "
            "the stream grows; set a static rope type in its config.json"
        )


@torch.inference_mode()
def check_law(streaming: "StreamingCausalLM", num_tokens: int = 8) -> None:
    """Refuse a model whose unit-by-unit logits differ from those of one pass.

    First, the model as it is and the parts of it that are used here must agree on a plain text.

    Args:
        streaming: the model to try.
        num_tokens: length of the source tried.

    Raises:
        ValueError: saying by how much it fails.
    """
    model = streaming.model
    name = f"model type {model.config.model_type!r} cannot stream"
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = [(7919 * (i + 1)) % vocabulary for i in range(num_tokens)]
    tolerance = LAW_TOLERANCE.get(model.dtype, 0.15)
    for logits, failure in (
        (_plain_logits, "it is more than a causal decoder and an output layer, which changes"),
        (_streamed_logits, "it does not follow its positions, masks or cache, which changes"),
    ):
        try:
            expected, actual = logits(streaming, ids)
        except Exception as error:  # whatever a family makes of inputs it was not written for
            raise ValueError(f"{name}: {type(error).__name__}: {_first_line(error)}") from error
        gap = float((expected - actual).abs().max() / expected.abs().max().clamp(min=1e-6))
        if not gap <= tolerance:
            raise ValueError(
                f"{name}: {failure} its logits by {gap:.2g} of their scale (allowed: {tolerance:g})"
            )


def _plain_logits(streaming: "StreamingCausalLM", ids: list[int]) -> tuple[Tensor, Tensor]:
    """Of a causal text: by the whole model with its own attention, and by the parts used here."""
    model = streaming.model
    ids_BS = torch.tensor([ids], device=model.device)
    model.set_attn_implementation("eager")
    try:
        expected = model(input_ids=ids_BS, use_cache=False).logits
    finally:
        model.set_attn_implementation(ATTENTION)
    position_BS = torch.arange(len(ids), device=model.device)[None]
    causal = position_BS[:, :, None] >= position_BS[:, None, :]
    masks = layer_masks(causal[:, None], position_BS, position_BS, streaming.windows)
    embeddings_BSD = model.get_input_embeddings()(ids_BS)
    hidden = hidden_states(model, embeddings_BSD, position_BS, masks, use_cache=False)
    return expected, project(model, hidden)


def _streamed_logits(streaming: "StreamingCausalLM", ids: list[int]) -> tuple[Tensor, Tensor]:
    """Of the first target token, the source read at once, and token by token.

    A probe is taken back before each token, and the source is kept from seeing it by the mask
    alone, so that a family that ignores masks or positions is found out.
    """
    from proactivellm.model.causal_lm import LaneInput

    head = streaming.prompt.target_head
    whole = streaming.new_cache()
    pieces = [(i + 1, [token]) for i, token in enumerate(ids)]
    once = streaming.step(whole, [LaneInput(lane=0, source=pieces, target=head, probes=True)])
    cache = streaming.new_cache()
    for i, piece in enumerate(pieces):
        step = streaming.step(
            cache, [LaneInput(lane=0, source=[piece], target=head, num_source=i, probes=True)]
        )
        cache.lengths[0] = i + 1
    assert once is not None and step is not None
    return once.logits_PV, step.logits_PV


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
