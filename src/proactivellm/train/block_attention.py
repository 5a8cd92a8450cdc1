"""Attention over packed views that leaves out what no row of a block can see.

In `[source | view 0 | view 1 ...]` with as many tokens in each part, a dense mask computes
(1 + W)^2 blocks for W views of which 1 + 2 W are ever visible. Legend: B = batch, H = heads,
Q = queries, K = keys, D = head dimension.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from proactivellm.forward.attention import streaming_attention

PACKED_ATTENTION = "proactivellm-packed"  # name of the attention function in transformers' registry
MIN_ROWS = 64  # rows per block; below it a mask is cheaper than a selection
MAX_BLOCKS = 6  # per forward: two for each part of [source | full view | partial view]
Blocks = list[tuple[slice, Tensor]]


def visible_blocks(mask: Tensor) -> Blocks:
    """Runs of rows, in order, each with the indices of the keys that at least one of them sees.

    Empty if one block is all. `mask` is bool [B, 1, Q, K], True = may attend.
    """
    rows = max(MIN_ROWS, -(-mask.shape[2] // MAX_BLOCKS))
    if mask.shape[2] <= rows:
        return []
    slices = [slice(start, start + rows) for start in range(0, mask.shape[2], rows)]
    return [(block, mask[:, 0, block].any((0, 1)).nonzero()[:, 0]) for block in slices]


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention of sessions, block by block if the forward was given `blocks`.

    Args:
        query: [B, H, Q, D]; key and value are [B, H_kv, K, D].
        attention_mask: bool [B, 1, Q, K].
        **kwargs: `blocks` of `visible_blocks`, `control` as in sessions, and what the model passes.

    Returns:
        [B, Q, H, D] and None.
    """
    blocks: Blocks = kwargs.pop("blocks", None) or []
    if (control := kwargs.pop("control", None)) is not None:
        attention_mask = control.mask(module.layer_idx, 0, attention_mask)
    # On a CPU the backward pass of the fused kernel is six times slower on blocks this small.
    with sdpa_kernel(SDPBackend.MATH) if query.device.type == "cpu" else nullcontext():
        if not blocks or attention_mask is None:
            return streaming_attention(module, query, key, value, attention_mask, **kwargs)
        parts = [
            streaming_attention(
                module,
                query[:, :, rows],
                key[:, :, keys],
                value[:, :, keys],
                attention_mask[:, :, rows][..., keys],
                **kwargs,
            )[0]
            for rows, keys in blocks
        ]
    return torch.cat(parts, dim=1), None


def register() -> None:
    """Make `packed_attention` known to transformers under its name (idempotent)."""
    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
    AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)
