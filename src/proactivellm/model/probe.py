"""The attention of the token that decides, captured while the forward runs.

The probe is an argument of the decoder's forward that transformers hands down to the attention
function: no module is patched, no state is kept between steps, and the model keeps its fused
attention. Legend: B = lanes, H = heads, L = layers, Q = new tokens, K = entries, U = units,
D = head dimension.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "proactivellm"  # name of the attention function in transformers' registry


class AttentionProbe:
    """Collects attention weights of one query per lane from every layer of one forward.

    Args:
        rows_B: index of the probing token among the new tokens of each lane.
    """

    def __init__(self, rows_B: Tensor) -> None:
        self.rows_B = rows_B
        self.layers: list[Tensor] = []

    def capture(
        self, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, **extras: Any
    ) -> None:
        """Compute and keep the weights of the probing rows.

        Args:
            query: [B, H, Q, D].
            key: [B, H_kv, K, D].
            mask: bool [B, 1, Q, K].
            scaling: of the scores.
            **extras: `cap` and `sinks`, of families that have them.
        """
        lanes = torch.arange(query.shape[0], device=query.device)
        query = query[lanes, :, self.rows_B][:, :, None]
        mask = None if mask is None else mask[lanes, :, self.rows_B][:, :, None]
        self.layers.append(_weights(query, key, mask, scaling, **extras)[:, :, 0])

    def weights(self) -> Tensor:
        """All weights seen: [L, B, H, K].

        Raises:
            ValueError: if the model's layers did not come by here.
        """
        if not self.layers:
            raise ValueError(
                "this model family does its attention by itself, so that it cannot be looked at: "
                "take a policy that needs no attention, such as entropy"
            )
        return torch.stack(self.layers)


def probing_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Fused attention that also feeds a probe, if one was passed to the forward.

    Args:
        module: the attention layer.
        query: [B, H, Q, D].
        key: [B, H_kv, K, D].
        value: [B, H_kv, K, D].
        attention_mask: bool [B, 1, Q, K].
        **kwargs: `scaling`, `dropout`, `softcap`, `s_aux` (learned sinks, [H]), `probe` and what
            else the model passes.

    Returns:
        [B, Q, H, D] and None.
    """
    probe = kwargs.pop("probe", None)
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    extras = {"cap": kwargs.get("softcap"), "sinks": kwargs.get("s_aux")}
    if probe is not None:
        probe.capture(query, key, attention_mask, scaling, **extras)
    if any(extra is not None for extra in extras.values()):  # the fused kernel has neither
        weights = _weights(query, key, attention_mask, scaling, **extras).to(value.dtype)
        values = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
        return (weights @ values).transpose(1, 2), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def register() -> None:
    """Make `probing_attention` known to transformers under the name ATTENTION (idempotent)."""
    AttentionInterface.register(ATTENTION, probing_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def unit_attention(
    weights_LBHK: Tensor, unit_BK: Tensor, heads: tuple[tuple[int, int], ...] | None = None
) -> Tensor:
    """Share of the source attention on each unit.

    Prompt and target entries are left out, which removes the attention sink at the start of the
    sequence (AlignAtt, Papi et al. 2023); where there is no prompt, unit 1 carries the sink.

    Args:
        weights_LBHK: from `AttentionProbe.weights`.
        unit_BK: unit of each entry; 0 = prompt or target, negative = not in use.
        heads: (layer, head) pairs to average; None = all.

    Returns:
        [B, U], rows sum to 1 (0 where nothing was read).
    """
    if heads is None:
        mean_BK = weights_LBHK.mean((0, 2))
    else:
        mean_BK = torch.stack([weights_LBHK[layer, :, head] for layer, head in heads]).mean(0)
    return _share(mean_BK, unit_BK)


def unit_attention_by_head(weights_LBHK: Tensor, unit_BK: Tensor) -> Tensor:
    """`unit_attention` of every head on its own, for choosing heads.

    Args:
        weights_LBHK: from `AttentionProbe.weights`.
        unit_BK: unit of each entry.

    Returns:
        [L, H, B, U].
    """
    layers, lanes, num_heads, entries = weights_LBHK.shape
    flat = weights_LBHK.transpose(1, 2).reshape(-1, entries)
    repeated = unit_BK.repeat(layers * num_heads, 1)
    return _share(flat, repeated).view(layers, num_heads, lanes, -1)


def _share(weights_BK: Tensor, unit_BK: Tensor) -> Tensor:
    units = max(int(unit_BK.max()), 1)
    sums = weights_BK.new_zeros(weights_BK.shape[0], units + 1)
    sums.scatter_add_(1, unit_BK.clamp(min=0), weights_BK)
    sums = sums[:, 1:]
    return sums / sums.sum(-1, keepdim=True).clamp(min=1e-9)


def _weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float,
    cap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention weights [B, H, Q, K] in fp32; scores capped (Gemma 2), learned sinks (gpt-oss)."""
    grouped = query.float().unflatten(1, (key.shape[1], -1)).flatten(2, 3)
    scores = (grouped @ key.float().transpose(2, 3)).view(*query.shape[:3], -1) * scaling
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is None:
        return scores.softmax(-1)
    column = sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
