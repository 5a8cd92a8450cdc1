"""Packed views as a batch: collation of samples, and the module that turns a batch into a loss.

Legend: B = batch, S = tokens of the packed sequence, R = target rows, D = model width, W = views.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from proactivellm.model.backbone import decoder_output, project
from proactivellm.model.layout import Layout
from proactivellm.model.masks import PADDING, layer_masks, visibility
from proactivellm.model.packing import IGNORE, Packed
from proactivellm.model.watch import watch_attention
from proactivellm.train.attention import visible_blocks
from proactivellm.train.losses import Objective, combine, rows_within, view_losses
from proactivellm.train.router import router_loss, router_weight
from proactivellm.train.window import count_items

PARTS = ("loss_batch", "loss_mslm", "kl")
PAD = {"input_ids": 0, "group": 0, "arrival": 0, "view": PADDING, "position": 0, "label": IGNORE}


def collate(batch: Sequence[Packed]) -> dict[str, Tensor]:
    """Right-pad packed sequences to one length.

    Args:
        batch: B packed samples.

    Returns:
        int64 tensors [B, S] named as the fields of `Packed`; where there are recordings, also
        `mel` [A, T, F], `num_frames` and `mel_rows` (place in the batch) [A] of the A samples that
        have one, and their `transcript` as bytes, [A, L], padded with IGNORE; where they are of
        a training plan, also `index` [B].
    """
    tensors = {
        name: _padded([getattr(packed, name) for packed in batch], pad) for name, pad in PAD.items()
    }
    if all(packed.index >= 0 for packed in batch):
        tensors["index"] = torch.tensor([packed.index for packed in batch])
    return tensors | _collate_features(batch)


def _padded(rows: Sequence[list[int]], pad: int) -> Tensor:
    length = max(map(len, rows))
    return torch.tensor([row + [pad] * (length - len(row)) for row in rows])


def _collate_features(batch: Sequence[Packed]) -> dict[str, Tensor]:
    """Mel frames padded on the right with zeros, of the samples that have any."""
    rows = [row for row, packed in enumerate(batch) if packed.features is not None]
    features = [packed.features for packed in batch if packed.features is not None]
    if not features:
        return {}
    num_frames = [len(mel_TF) for mel_TF in features]
    mel_ATF = np.zeros((len(features), max(num_frames), features[0].shape[1]), np.float32)
    for row, mel_TF in zip(mel_ATF, features, strict=True):
        row[: len(mel_TF)] = mel_TF
    return {
        "mel": torch.from_numpy(mel_ATF),
        "num_frames": torch.tensor(num_frames),
        "transcript": _padded([list(batch[row].transcript.encode()) for row in rows], IGNORE),
        "mel_rows": torch.tensor(rows),
    }


def packed_output(
    model: PreTrainedModel,
    batch: dict[str, Tensor],
    layout: Layout,
    windows: dict[str, int | None],
    embeddings_BSD: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """One forward over packed sequences under the layout's block mask.

    Args:
        model: a causal LM.
        batch: from `collate`.
        layout: decides who sees whom.
        windows: attention window per layer type, of `watch.watch_attention`.
        embeddings_BSD: input embeddings, where they are not those of the ids.
        **kwargs: passed to the decoder.

    Returns:
        What the decoder returns; its `last_hidden_state` is [B, S, D].
    """
    position_BS = batch["position"]
    mask = visibility(layout, batch, batch)
    masks = layer_masks(mask, position_BS, position_BS, windows)
    if embeddings_BSD is None:
        embeddings_BSD = model.get_input_embeddings()(batch["input_ids"])
    # Taken up by `packed_attention`, and by no other attention function.
    kwargs["blocks"] = visible_blocks(mask)
    return decoder_output(model, embeddings_BSD, position_BS, masks, **kwargs)


def view_rows(hidden_BSD: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The rows that predict something, view by view in the same order.

    Args:
        hidden_BSD: hidden states of the packed sequences.
        batch: from `collate`.

    Returns:
        hidden [W, R, D] and labels [R].
    """
    views = int(batch["view"].max()) + 1
    predicts = batch["label"] != IGNORE
    chosen = [predicts & (batch["view"] == view) for view in range(views)]
    hidden_WRD = torch.stack([hidden_BSD[rows] for rows in chosen])
    return hidden_WRD, batch["label"][chosen[0]]


class StreamingObjective(nn.Module):
    """A causal LM with the streaming objective on top: what the Trainer trains.

    Args:
        model: the causal LM; trained in place.
        layout: layout of the packed sequences.
        objective: loss weights.
    """

    def __init__(self, model: PreTrainedModel, layout: Layout, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.windows = watch_attention(model).windows
        self.layout = layout
        self.objective = objective
        self.router_weight = router_weight(model, objective.router_weight)

    @property
    def part_names(self) -> tuple[str, ...]:
        """What the parts of the loss are called."""
        return (*PARTS, "router") if self.router_weight else PARTS

    def rows_per_chunk(self, num_views: int) -> int:
        """Target rows whose logits exist at once.

        Args:
            num_views: W.
        """
        vocabulary = self.model.config.get_text_config().vocab_size
        return rows_within(self.objective.logits_mib, vocabulary, num_views)

    def hidden(self, batch: dict[str, Tensor]) -> Tensor:
        """Hidden states of packed sequences.

        Args:
            batch: from `collate`.

        Returns:
            [B, S, D].
        """
        hidden_BSD: Tensor = self.decode(batch).last_hidden_state
        return hidden_BSD

    def decode(self, batch: dict[str, Tensor], embeddings_BSD: Tensor | None = None) -> Any:
        """The forward of the decoder.

        Args:
            batch: from `collate`.
            embeddings_BSD: input embeddings, where they are not those of the ids.

        Returns:
            What it returns, with `router_logits` if their loss is wanted.
        """
        kwargs = {"output_router_logits": True} if self.router_weight else {}
        return packed_output(self.model, batch, self.layout, self.windows, embeddings_BSD, **kwargs)

    def losses(self, batch: dict[str, Tensor], hidden_BSD: Tensor) -> Tensor:
        """L_batch, L_MSLM and KL of a batch.

        Args:
            batch: from `collate`; view 0 is the full one.
            hidden_BSD: its hidden states.

        Returns:
            [3], nats per target token of the batch, or of the update it is a part of.
        """
        hidden_WRD, label_R = view_rows(hidden_BSD, batch)
        return view_losses(
            lambda hidden_RD: project(self.model, hidden_RD),
            hidden_WRD,
            label_R,
            self.objective,
            self.rows_per_chunk(len(hidden_WRD)),
            batch.get("num_rows"),
        )

    def target_loss(self, batch: dict[str, Tensor], output: Any) -> tuple[Tensor, Tensor]:
        """The loss of what the LM predicts, and of its router.

        Args:
            batch: from `collate`.
            output: of `decode`.

        Returns:
            The loss, and its parts.
        """
        losses = self.losses(batch, output.last_hidden_state)
        loss, parts = combine(losses, self.objective), losses.detach()
        if not self.router_weight:
            return loss, parts
        router = router_loss(self.model, output.router_logits, batch["view"] != PADDING)
        if "num_rows" in batch:  # each micro-batch by its share of the update's tokens
            router = router * (count_items(batch)[0] / batch["num_rows"])
        return loss + self.router_weight * router, torch.cat([parts, router.detach()[None]])

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """The training loss.

        Args:
            **batch: the tensors of `collate`.

        Returns:
            `loss` (scalar) and `parts` (detached), in the order of `part_names`.
        """
        loss, parts = self.target_loss(batch, self.decode(batch))
        return {"loss": loss, "parts": parts}
