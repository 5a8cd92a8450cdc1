"""Packed views as a batch: collation of samples, one forward over them, the rows that predict.

Legend: B = batch, S = tokens of the packed sequence, R = target rows, T = target tokens, D = model
width, W = views.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from proactivellm.backbone.decoder import Parts
from proactivellm.core.layout import Layout
from proactivellm.core.masks import layer_masks, visibility
from proactivellm.core.packing import IGNORE, Packed
from proactivellm.forward.packed import as_tensors, decoder_positions, pad_rows
from proactivellm.train.block_attention import visible_blocks


def collate(batch: Sequence[Packed]) -> dict[str, Tensor]:
    """Right-pad packed sequences to one length.

    Returns:
        int64 tensors [B, S] named as the fields of `Packed`. Of the A samples that have features,
        also `features` [A, T, ...], `num_frames` and `feature_rows` (place in the batch) [A], and
        their `transcript` as bytes, [A, L], padded with IGNORE. Where samples are of a training
        plan, also `index` [B]; with actions to learn, also `action` [B, S].
    """
    tensors = as_tensors(batch)
    if all(packed.action for packed in batch):
        tensors["action"] = pad_rows([packed.action for packed in batch], IGNORE)
    if all(packed.index >= 0 for packed in batch):
        tensors["index"] = torch.tensor([packed.index for packed in batch])
    return tensors | _collate_features(batch)


def _collate_features(batch: Sequence[Packed]) -> dict[str, Tensor]:
    rows = [row for row, packed in enumerate(batch) if packed.features is not None]
    features = [packed.features for packed in batch if packed.features is not None]
    if not features:
        return {}
    num_frames = [len(each) for each in features]
    padded = np.zeros((len(features), max(num_frames), *features[0].shape[1:]), np.float32)
    for row, each in zip(padded, features, strict=True):
        row[: len(each)] = each
    return {
        "features": torch.from_numpy(padded),
        "num_frames": torch.tensor(num_frames),
        "transcript": pad_rows([list(batch[row].transcript.encode()) for row in rows], IGNORE),
        "feature_rows": torch.tensor(rows),
    }


def packed_output(
    model: PreTrainedModel,
    batch: dict[str, Tensor],
    layout: Layout,
    windows: dict[str, int | None],
    embeddings_BSD: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """One forward over packed sequences under the layout's block mask; returns what the decoder
    does.

    Args:
        windows: attention window per layer type, of `watch.watch_attention`.
        embeddings_BSD: input embeddings, where they are not those of the ids.
    """
    position_BS = batch["position"]
    mask = visibility(layout, batch, batch)
    masks = layer_masks(mask, position_BS, position_BS, windows)
    if embeddings_BSD is None:
        embeddings_BSD = model.get_input_embeddings()(batch["input_ids"])
    # Taken up by `packed_attention`, and by no other attention function.
    kwargs["blocks"] = visible_blocks(mask)
    return Parts(model).decode(embeddings_BSD, decoder_positions(batch), masks, **kwargs)


def view_rows(hidden_BSD: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The rows that predict something: hidden [W, R, D], labels [W, R]."""
    chosen = predicting(batch)
    hidden_WRD = torch.stack([hidden_BSD[rows] for rows in chosen])
    return hidden_WRD, torch.stack([batch["label"][rows] for rows in chosen])


def view_actions(batch: dict[str, Tensor]) -> Tensor | None:
    """What those rows are to learn of the control token, [W, R]; None where nothing is."""
    if "action" not in batch:
        return None
    return torch.stack([batch["action"][rows] for rows in predicting(batch)])


def predicting(batch: dict[str, Tensor]) -> list[Tensor]:
    """The rows that predict, by view: bool [B, S]; there are as many in each."""
    views = int(batch["view"].max()) + 1
    predicts = batch["label"] != IGNORE
    return [predicts & (batch["view"] == view) for view in range(views)]


def of_targets(values_BT: Tensor, predicts_BS: Tensor) -> Tensor:
    """Values by prefix and target token as values by row, [R, ...], in the order of rows.

    `predicts_BS` are the rows of a view that predict, one for each target token.
    """
    place_T = torch.arange(values_BT.shape[1], device=values_BT.device)
    return values_BT[place_T < predicts_BS.sum(1)[:, None]]
