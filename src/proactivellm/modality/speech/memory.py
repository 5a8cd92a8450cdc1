"""The attention function given to a speech encoder: new steps see those of earlier calls, too.

What earlier calls left is an argument of the layers, which transformers hands down to the attention
function: no module is patched. Legend: B = recordings, H = heads, Q = new steps, K = steps, D =
head dimension.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "proactivellm-encoder"  # name of the attention function in transformers' registry


class Memory:
    """Keys and values [1, H, K, D] of one layer, which its next call goes on from.

    The memory may write to the tensors it is given; None = no steps yet.
    """

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        self._keys, self._values = keys, values  # with room for more than `num_steps`
        self.num_steps = 0 if keys is None else keys.shape[2]

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new steps [1, H, Q, D]; returns keys and values of all, valid until the next
        call.
        """
        held, self.num_steps = self.num_steps, self.num_steps + keys.shape[2]
        self._keys = _with_room(self._keys, keys, held, self.num_steps)
        self._values = _with_room(self._values, values, held, self.num_steps)
        self._keys[:, :, held : self.num_steps] = keys
        self._values[:, :, held : self.num_steps] = values
        return self._keys[:, :, : self.num_steps], self._values[:, :, : self.num_steps]

    def tensors(self) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Copies of keys and values of all steps."""
        if self._keys is None or self._values is None:
            return None, None
        stop = self.num_steps
        return self._keys[:, :, :stop].clone(), self._values[:, :, :stop].clone()


class Share(NamedTuple):
    """The part of a call's rows that belongs to one recording; it sees nothing of the others."""

    memory: Memory
    num_new: int  # rows
    mask_11QK: Tensor | None  # None = all see all


def _with_room(store: Tensor | None, like: Tensor, held: int, wanted: int) -> Tensor:
    """The store, or a larger copy; room doubles, so that a step costs the same on average."""
    if store is not None and store.shape[2] >= wanted:
        return store
    batch, heads, _, width = like.shape
    larger = like.new_empty(batch, heads, max(wanted, 2 * held), width)
    if store is not None:
        larger[:, :, :held] = store[:, :, :held]
    return larger


def remembering_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention, [B, Q, H, D], of queries [B, H, Q, D] to what memories hold and to what is new.

    Args:
        attention_mask: [B, 1, Q, K], or None: all see all. Each share has one of its own instead.
        **kwargs: `shares`, a sequence of `Share`, in whose order the rows lie one after another
            (B = 1), and whose memories are extended; and what the model passes.
    """
    shares: Sequence[Share] | None = kwargs.pop("shares", None)
    if shares is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    sizes = [share.num_new for share in shares]
    # Not padded to one batch: memories differ in length, and would have to be copied for each call.
    attended = [
        sdpa_attention_forward(
            module,
            query_1HQD,
            *share.memory.extend(key_1HQD, value_1HQD),
            share.mask_11QK,
            **kwargs,
        )[0]
        for share, query_1HQD, key_1HQD, value_1HQD in zip(
            shares, *(rows.split(sizes, dim=2) for rows in (query, key, value)), strict=True
        )
    ]
    return torch.cat(attended, dim=1), None


def register() -> None:
    """Make `remembering_attention` known to transformers under its name (idempotent)."""
    AttentionInterface.register(ATTENTION, remembering_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
