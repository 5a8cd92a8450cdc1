"""Attention masks from a layout and an arrival order: one rule for training and inference.

Training compares stamps of whole sequences, inference those of new tokens against the cache. Every
token carries its group, an arrival stamp (larger = later), a view (SHARED or the number of the
packed view) and its position. Legend: B = batch, Q = query tokens, K = key tokens. True = may
attend.
"""

import functools

import torch
from torch import Tensor

from proactivellm.core.layout import Layout

SHARED = -1  # view of tokens that every packed view may see
PADDING = -2  # view of padding: sees itself only, so that no softmax row is empty


def visibility(
    layout: Layout,
    query: dict[str, Tensor],
    key: dict[str, Tensor],
) -> Tensor:
    """Which keys each query may attend to: bool [B, 1, Q, K].

    Args:
        query: `group`, `arrival` and, where tokens of several views are packed, `view`, each int64
            [B, Q].
        key: the same, each [B, K].
    """
    table = _table(layout.attends, query["group"].device)
    allowed = table[query["group"][:, :, None], key["group"][:, None, :]]
    allowed &= key["arrival"][:, None, :] <= query["arrival"][:, :, None]
    if "view" in query:
        view_q, view_k = query["view"][:, :, None], key["view"][:, None, :]
        allowed &= (view_k == view_q) | ((view_k == SHARED) & (view_q != PADDING))
    return allowed[:, None]


@functools.cache  # made once: a step that is captured may copy nothing to the device
def _table(attends: tuple[tuple[bool, ...], ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(attends, device=device)


def within_window(query_position: Tensor, key_position: Tensor, window: int) -> Tensor:
    """Sliding-window visibility: positions less than `window` apart, in either direction.

    The distance is one of positions, not of arrival, so that it is the same under every schedule,
    and the distance that rotary embeddings see stays in the range the window was trained on.

    Returns:
        bool [B, 1, Q, K], of positions [B, Q] and [B, K].
    """
    distance = query_position[:, :, None] - key_position[:, None, :]
    return (distance.abs() < window)[:, None]


def layer_masks(
    mask: Tensor, query_position: Tensor, key_position: Tensor, windows: dict[str, int | None]
) -> Tensor | dict[str, Tensor]:
    """The mask in the form a transformers model takes: one tensor, or one per layer type.

    Args:
        mask: bool [B, 1, Q, K] from `visibility`.
        query_position: int64 [B, Q].
        key_position: int64 [B, K].
        windows: window per layer type (None = full attention); the single key "all" for models that
            take one tensor.
    """
    masks = {
        kind: mask if window is None else mask & within_window(query_position, key_position, window)
        for kind, window in windows.items()
    }
    return masks["all"] if "all" in masks else masks
