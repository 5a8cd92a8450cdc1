"""What the library asks of an unmodified transformers causal LM, and nothing else does.

Legend: B = batch, S = tokens, D = model width, W = width of the input, R = rows, V = vocabulary.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

# What a forward calls its cache: from transformers 5.24 on, and before (as remote code still does).
CACHE_ARGUMENTS = ("cache", "past_key_values")
# What a decoder calls what it adds after its first layers, and where that was seen.
_DEEP, _SEEN = "deepstack_visual_embeds", "visual_pos_masks"
KNOWN_LAYER_TYPES = {"full_attention", "sliding_attention"}


def layer_types(config: Any) -> tuple[str, ...]:
    """What a configuration calls each layer; "all" where it makes no difference between them."""
    config = config.get_text_config()
    named = getattr(config, "layer_types", None)
    if not named:
        return ("all",) * config.num_hidden_layers
    unknown = ", ".join(sorted(set(named) - KNOWN_LAYER_TYPES))
    if unknown:
        raise ValueError(
            f"model type {config.model_type!r} has layers of type {unknown}: only layers that keep "
            "keys and values per token can stream (a recurrent state cannot take back a probe, and "
            "depends on the order of arrival)"
        )
    return tuple(named)


def position_limit(config: Any) -> int | None:
    """First position id that a stream may not use; None without such a limit."""
    config = config.get_text_config()
    rope = rope_tables(config)
    if not rope:
        return getattr(config, "max_position_embeddings", None)
    # There `longrope` changes to other angles than those in the cache, and for the whole batch;
    # Phi-MoE changes its scale with any kind of scaling.
    limits = [
        int(table["original_max_position_embeddings"])
        for table in rope
        if table.get("rope_type") == "longrope"
        or (table.get("rope_type", "default") != "default" and "long_mscale" in table)
    ]
    return min(limits, default=None)


def rope_tables(config: Any) -> list[dict[str, Any]]:
    """Rotary settings: one table, or one per layer type; none for learned positions."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    nested = [table for table in rope.values() if isinstance(table, dict)]
    return nested or ([rope] if rope else [])


def cache_argument(module: nn.Module) -> str | None:
    """Which of CACHE_ARGUMENTS a causal LM or its decoder takes; None if it takes no cache."""
    accepted = inspect.signature(type(module).forward).parameters
    return next((name for name in CACHE_ARGUMENTS if name in accepted), None)


def num_deep_inputs(model: PreTrainedModel) -> int:
    """After how many of its first layers a decoder adds more of what is seen; 0 for most."""
    if _DEEP not in inspect.signature(type(decoder_of(model)).forward).parameters:
        return 0
    vision = getattr(model.config, "vision_config", None)
    return len(vision.deepstack_visual_indexes) if vision is not None else 0


def decoder_of(model: PreTrainedModel) -> Any:
    """The decoder of a causal LM: what it is without its output layer."""
    decoder = model.get_decoder()
    # Llama 4 names a part of the larger model that it comes from, and so finds itself.
    return model.model if decoder is model else decoder


def recompute_activations(model: PreTrainedModel) -> None:
    """Trade compute for memory in training: activations are computed again for gradients."""
    # Where transformers has this name, the one before it is deprecated; old releases lack it.
    newer = getattr(model, "activation_checkpointing_enable", None)
    (newer or model.gradient_checkpointing_enable)()


class Parts:
    """What a forward calls of a causal LM, looked up once: that takes as long as to plan a lane.

    Args:
        model: complete, adapters included.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.decoder = decoder_of(model)
        self.embed = model.get_input_embeddings()
        self.output_layer = model.get_output_embeddings()
        self._cache_argument = cache_argument(self.decoder) or CACHE_ARGUMENTS[0]
        config = model.config.get_text_config()
        # Of an input embedding: some decoders add more of what is seen after their first layers
        # (DeepStack, arXiv 2406.04334), which stands behind the embedding itself.
        self.width = self.embed.weight.shape[1] * (1 + num_deep_inputs(model))
        self._scale = getattr(config, "logit_scale", None)  # Cohere
        self._divisor = getattr(config, "logits_scaling", None)  # Granite
        self._cap = getattr(config, "final_logit_softcapping", None)  # Gemma
        # Families that attend by themselves, unfused, add masks to their scores. Some have fused
        # attention as well; which one is in use was settled when the model was loaded.
        fused = model._supports_sdpa or model._supports_attention_backend
        self._adds_masks = not fused or config._attn_implementation == "eager"

    def decode(
        self,
        embeddings_BSW: Tensor,
        position_BS: Tensor,
        mask: Tensor | dict[str, Tensor],
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the decoder, without the output layer.

        Args:
            embeddings_BSW: of width D, or `width` if they hold what is seen.
            mask: bool, True = attend, [B, 1, S, K] or a dict of them per layer type; attention that
                a family does by itself is given what it takes.
            cache: new entries are written into it; None = the tokens see each other only.
            **kwargs: passed to the decoder, and by it to the attention function.

        Returns:
            An output of transformers: `last_hidden_state` [B, S, D] (after the final norm), and
            what `kwargs` ask for.
        """
        if self._adds_masks:
            mask = _additive(mask, embeddings_BSW.dtype)
        if embeddings_BSW.shape[-1] != self.embed.weight.shape[1]:
            embeddings_BSW, *deep = embeddings_BSW.split(self.embed.weight.shape[1], dim=-1)
            # To text, nothing is added, so that all rows may count as seen.
            everywhere = torch.ones_like(embeddings_BSW[..., 0], dtype=torch.bool)
            kwargs |= {_DEEP: [each.flatten(0, 1) for each in deep], _SEEN: everywhere}
        if cache is not None:
            kwargs[self._cache_argument] = cache
        return self.decoder(
            inputs_embeds=embeddings_BSW,
            position_ids=position_BS,
            attention_mask=mask,
            use_cache=cache is not None,
            **kwargs,
        )

    def embed_all(self, ids_T: np.ndarray, features: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Input embeddings [1, T, W] of token ids, with those of features from their places on."""
        text_1TD = self.embed(torch.from_numpy(ids_T[None]).to(self.embed.weight.device))
        embeddings_1TW = self.widened(text_1TD) if features else text_1TD
        for at, values in features:
            embeddings_1TW[0, at : at + len(values)] = values.to(embeddings_1TW)
        return embeddings_1TW

    def widened(self, embeddings_BSD: Tensor) -> Tensor:
        """Embeddings [B, S, W] of text, among those of what is seen: the rest of them is 0."""
        missing = self.width - embeddings_BSD.shape[-1]
        return nn.functional.pad(embeddings_BSD, (0, missing)) if missing else embeddings_BSD

    def project(self, hidden_RD: Tensor) -> Tensor:
        """Logits [R, V] of chosen rows, with the scaling and soft cap that some families add."""
        return self.finish(self.output_layer(hidden_RD))

    def finish(self, logits_RV: Tensor) -> Tensor:
        """What stands between the output layer and the logits of the family."""
        if self._scale:
            logits_RV = logits_RV * self._scale
        if self._divisor:
            logits_RV = logits_RV / self._divisor
        return torch.tanh(logits_RV / self._cap) * self._cap if self._cap else logits_RV


def _additive(mask: Tensor | dict[str, Tensor], dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """The masks of families whose attention is older than fused kernels: added to the scores."""
    if isinstance(mask, dict):
        return {kind: _additive(kind_mask, dtype) for kind, kind_mask in mask.items()}  # type: ignore[misc]
    lowest = torch.finfo(dtype).min
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest)
