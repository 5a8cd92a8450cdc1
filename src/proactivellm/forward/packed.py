"""Packed views of several samples, in one masked forward of a model as it streams.

Legend: B = samples, S = tokens of the packed sequence, D = model width, W = width of the input,
F = embeddings of media.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from proactivellm.core.masks import PADDING, layer_masks, visibility
from proactivellm.core.packing import IGNORE, MEDIA_ID, Packed
from proactivellm.forward.attention import attention_kernels
from proactivellm.forward.seen import begin_whole

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM

_PAD = {"input_ids": 0, "group": 0, "arrival": 0, "view": PADDING, "position": 0, "label": IGNORE}
_SPACE = ("row", "column")  # of positions with three axes


def pad_rows(rows: Sequence[list[int]], pad: int) -> Tensor:
    """Rows of ids as one tensor, padded on the right."""
    length = max(map(len, rows))
    return torch.tensor([row + [pad] * (length - len(row)) for row in rows])


def as_tensors(batch: Sequence[Packed]) -> dict[str, Tensor]:
    """The columns of packed sequences, int64 [B, S], padded to one length.

    Those of space are there if one of them has any.
    """
    names = [*_PAD, *(_SPACE if any(p.row for p in batch) else ())]
    lists = {name: [getattr(p, name) or p.position for p in batch] for name in names}
    return {name: pad_rows(rows, _PAD.get(name, 0)) for name, rows in lists.items()}


def decoder_positions(columns: Mapping[str, Tensor]) -> Tensor:
    """Positions as a decoder takes them: [B, S], or [3, B, S] where tokens lie in space."""
    if "row" not in columns:
        return columns["position"]
    return torch.stack([columns[name] for name in ("position", *_SPACE)])


@torch.inference_mode()
def packed_hidden(
    streaming: "StreamingCausalLM",
    batch: Sequence[Packed],
    media: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """Last hidden states [B, S, D], after the final norm; what pads a sequence means nothing.

    `media` are the embeddings [F, W] that stand for the ids MEDIA_ID of each sample, in order.
    """
    columns = as_tensors(batch)
    allowed_B1SS = visibility(streaming.layout, columns, columns)
    return masked_hidden(streaming, columns, allowed_B1SS, media)


def masked_hidden(
    streaming: "StreamingCausalLM",
    columns: dict[str, Tensor],
    allowed_B1SS: Tensor,
    media: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """As `packed_hidden`, of columns and a mask that are given; gradients may flow."""
    model = streaming.model
    ids_BS, position_BS = (columns[name].to(model.device) for name in ("input_ids", "position"))
    parts = streaming.parts
    embeddings_BSW = parts.embed(ids_BS.clamp(min=0))
    if any(values_FW is not None for values_FW in media or ()):
        embeddings_BSW = parts.widened(embeddings_BSW)
    for row, values_FW in enumerate(media or ()):
        if values_FW is not None and len(values_FW):
            places = (ids_BS[row] == MEDIA_ID).nonzero()[:, 0]
            copies = len(places) // len(values_FW)  # one for each view, if views share no source
            embeddings_BSW[row, places] = values_FW.to(embeddings_BSW).repeat(copies, 1)
    masks = layer_masks(allowed_B1SS.to(model.device), position_BS, position_BS, streaming.windows)
    kwargs = {}
    if streaming.control is not None:
        kwargs["control"] = begin_whole(streaming.control, ids_BS == MEDIA_ID)
    with attention_kernels(model.device):
        position = decoder_positions(columns).to(model.device)
        output = parts.decode(embeddings_BSW, position, masks, **kwargs)
    hidden_BSD: Tensor = output.last_hidden_state
    return hidden_BSD
