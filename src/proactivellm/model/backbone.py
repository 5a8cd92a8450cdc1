"""What the library asks of an unmodified transformers causal LM, and nothing else does.

Legend: B = batch, S = tokens, D = model width, R = rows, V = vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

KNOWN_LAYER_TYPES = {"full_attention": False, "sliding_attention": True}


def layer_windows(config: Any) -> dict[str, int | None]:
    """Attention window per layer type, in the form `masks.layer_masks` takes.

    Args:
        config: a transformers model configuration.

    Returns:
        `{"all": window}` for models that take one mask, else one entry per layer type.

    Raises:
        ValueError: if a layer is of a kind that keeps no per-token keys and values.
    """
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
    layer_types = getattr(config, "layer_types", None)
    if not layer_types:
        return {"all": window}
    unknown = ", ".join(sorted(set(layer_types) - set(KNOWN_LAYER_TYPES)))
    if unknown:
        raise ValueError(
            f"model type {config.model_type!r} has layers of type {unknown}: only layers that keep "
            "keys and values per token can stream (a recurrent state cannot take back a probe, and "
            "depends on the order of arrival)"
        )
    return {kind: window if KNOWN_LAYER_TYPES[kind] else None for kind in set(layer_types)}


def layer_types(config: Any) -> tuple[str, ...]:
    """The key of `layer_windows` that belongs to each layer.

    Args:
        config: a transformers model configuration.
    """
    config = config.get_text_config()
    return tuple(getattr(config, "layer_types", None) or ["all"] * config.num_hidden_layers)


def position_limit(config: Any) -> int | None:
    """First position id that a stream may not use.

    Args:
        config: a transformers model configuration.

    Returns:
        The number of learned positions, or that at which `longrope` changes to other angles than
        those in the cache, and for the whole batch (Phi-MoE: any scaling, to another scale); None
        without such a limit.
    """
    config = config.get_text_config()
    rope = rope_tables(config)
    if not rope:
        return getattr(config, "max_position_embeddings", None)
    limits = [
        int(table["original_max_position_embeddings"])
        for table in rope
        if table.get("rope_type") == "longrope"
        or (table.get("rope_type", "default") != "default" and "long_mscale" in table)
    ]
    return min(limits, default=None)


def rope_tables(config: Any) -> list[dict[str, Any]]:
    """Rotary settings: one table, or one per layer type; none for learned positions.

    Args:
        config: a transformers model configuration.
    """
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    nested = [table for table in rope.values() if isinstance(table, dict)]
    return nested or ([rope] if rope else [])


def hidden_states(
    model: PreTrainedModel,
    embeddings_BSD: Tensor,
    position_BS: Tensor,
    mask: Tensor | dict[str, Tensor],
    **kwargs: Any,
) -> Tensor:
    """Last hidden states of the decoder, without its output layer.

    Args:
        model: a causal LM.
        embeddings_BSD: input embeddings.
        position_BS: position ids, int64.
        mask: bool, True = attend, [B, 1, S, K] or a dict of them per layer type.
        **kwargs: passed to the decoder (cache, attention probe).

    Returns:
        [B, S, D], after the final norm.
    """
    hidden_BSD: Tensor = decoder_output(
        model, embeddings_BSD, position_BS, mask, **kwargs
    ).last_hidden_state
    return hidden_BSD


def decoder_output(
    model: PreTrainedModel,
    embeddings_BSD: Tensor,
    position_BS: Tensor,
    mask: Tensor | dict[str, Tensor],
    **kwargs: Any,
) -> Any:
    """All that the decoder returns.

    Args:
        model: a causal LM.
        embeddings_BSD: input embeddings.
        position_BS: position ids, int64.
        mask: as for `hidden_states`.
        **kwargs: passed to the decoder.

    Returns:
        An output of transformers, with `last_hidden_state` and what `kwargs` ask for.
    """
    return model.get_decoder()(
        inputs_embeds=embeddings_BSD, position_ids=position_BS, attention_mask=mask, **kwargs
    )


def project(model: PreTrainedModel, hidden_RD: Tensor) -> Tensor:
    """The output layer on chosen rows, with the scaling and soft cap some families put after it.

    Args:
        model: a causal LM.
        hidden_RD: hidden states of the rows that need a distribution.

    Returns:
        logits [R, V].
    """
    logits_RV = model.get_output_embeddings()(hidden_RD)
    config = model.config.get_text_config()
    if getattr(config, "logit_scale", None):  # Cohere
        logits_RV = logits_RV * config.logit_scale
    if getattr(config, "logits_scaling", None):  # Granite
        logits_RV = logits_RV / config.logits_scaling
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    return torch.tanh(logits_RV / cap) * cap if cap else logits_RV
