"""Attention masks from a layout and an arrival order: one rule for training and inference.

Every token carries its group, an arrival stamp (larger = later), a view (SHARED or the number of
the packed view) and its position. Legend: B = batch, Q = query tokens, K = key tokens.
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

    Queries have `group`, `arrival` and, where tokens of several views are packed, `view`, each
    int64 [B, Q]; keys the same, [B, K]. Where queries also have a `horizon`, the newest unit that
    they may see, keys have a `unit`: what was read ahead stands among the keys, and is not seen.
    Likewise the `oldest` unit that queries may see, beside the prompt (unit 0), and what they may
    see for another reason, `recalled`, bool [B, Q, K].
    """
    table = _table(layout.attends, query["group"].device)
    allowed = table[query["group"][:, :, None], key["group"][:, None, :]]
    allowed &= key["arrival"][:, None, :] <= query["arrival"][:, :, None]
    if "view" in query:
        view_q, view_k = query["view"][:, :, None], key["view"][:, None, :]
        allowed &= (view_k == view_q) | ((view_k == SHARED) & (view_q != PADDING))
    if "horizon" in query:
        allowed &= key["unit"][:, None, :] <= query["horizon"][:, :, None]
    if "oldest" in query:
        unit = key["unit"][:, None, :]
        allowed &= (unit >= query["oldest"][:, :, None]) | (unit == 0) | query["recalled"]
    return allowed[:, None]


@functools.cache  # made once: a step that is captured may copy nothing to the device
def _table(attends: tuple[tuple[bool, ...], ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(attends, device=device)


def within_window(query_position: Tensor, key_position: Tensor, window: int) -> Tensor:
    """Whether positions [B, Q] and [B, K] are less than `window` apart: bool [B, 1, Q, K]."""
    # The distance is one of positions, not of arrival, so that it is the same under every schedule,
    # and rotary embeddings see no distance that the window was not trained on.
    distance = query_position[:, :, None] - key_position[:, None, :]
    return (distance.abs() < window)[:, None]


def layer_masks(
    mask: Tensor, query_position: Tensor, key_position: Tensor, windows: dict[str, int | None]
) -> Tensor | dict[str, Tensor]:
    """The mask of `visibility` as a transformers model takes it: one tensor, or one per layer type.

    `windows` has a window per layer type (None = full attention), or the single key "all" for
    models that take one tensor. Positions are int64 [B, Q] and [B, K].
    """
    masks = {
        kind: mask if window is None else mask & within_window(query_position, key_position, window)
        for kind, window in windows.items()
    }
    return masks["all"] if "all" in masks else masks
