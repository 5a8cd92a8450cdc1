"""An unmodified Whisper-class encoder of transformers, run causally over whole recordings.

Its own modules are called; nothing in them changes but the mask of self-attention, an input.
Legend: B = recordings, T = mel frames, F = mel bands, S = encoder steps (two mel frames each), P =
steps after pooling, D = encoder width.
"""

from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as nn_f
from pydantic import Field
from torch import Tensor, nn

from proactivellm.files.toml import Strict
from proactivellm.files.values import Count
from proactivellm.modality.base import TooLongError

Number = TypeVar("Number", int, Tensor)  # of one recording, or of each of several


class AttentionSettings(Strict):
    """Which steps of the encoder may attend to which."""

    # Steps that attend to each other in both directions; 1 = strictly causal.
    block: int = Field(default=1, ge=1)
    lookahead: int = Field(default=0, ge=0)  # steps after its block that a block sees
    # Steps that the first block is shorter, so that blocks end where units do.
    offset: int = Field(default=0, ge=0)
    # Blocks of which training draws one for each batch; none = `block`.
    drawn: tuple[Count, ...] = ()


class Rows(NamedTuple):
    """Rows that are encoded together."""

    step_S: Tensor  # the step that each row is
    block_S: Tensor  # the block in which it is encoded
    num_steps: int  # rows that stay; those after them are copies for looking ahead

    def visible(self) -> Tensor:
        """Which rows see which: bool [S, S]."""
        copy_S = torch.arange(len(self.step_S)) >= self.num_steps
        earlier_SS = self.block_S[:, None] >= self.block_S
        return torch.where(copy_S, self.block_S[:, None] == self.block_S, earlier_SS)


class CausalEncoder(nn.Module):
    """A Whisper-class encoder under a causal mask: trainable, whole recordings at a time.

    `tower` is a `WhisperEncoder` or `Qwen2AudioEncoder`, as transformers has them.
    """

    def __init__(self, tower: nn.Module, attention: AttentionSettings) -> None:
        super().__init__()
        self.tower: Any = tower
        self.attention = attention

    @property
    def pool(self) -> int:
        """Steps averaged into one output: 2 in Qwen2-Audio, else 1."""
        pooler = getattr(self.tower, "avg_pooler", None)
        return 1 if pooler is None else int(pooler.stride[0])

    @property
    def width(self) -> int:
        """D, channels of the output."""
        return int(self.tower.config.d_model)

    def num_steps(self, num_frames: Number) -> Number:
        """Encoder steps S, before pooling, of T mel frames."""
        return (num_frames + 1) // 2

    def num_outputs(self, num_frames: Number) -> Number:
        """Outputs P of T mel frames."""
        return self.num_steps(num_frames) // self.pool

    def forward(self, mel_BTF: Tensor, num_frames_B: Tensor) -> Tensor:
        """Outputs [B, P, D] of mel frames, padded on the right with anything.

        In training mode the block is drawn, if there are several (torch's own generator, whose
        state a checkpoint of a run keeps). Rows after `num_outputs` of a recording mean nothing.
        TooLongError if one has more steps than the encoder has positions.
        """
        steps_B = self.num_steps(num_frames_B)
        hidden_BSD = self._convolve(mel_BTF, num_frames_B)
        num_steps = hidden_BSD.shape[1]
        self.check_length(num_steps)
        rows = self.rows(0, num_steps, num_steps, self._block())
        step_S = rows.step_S.to(mel_BTF.device)
        hidden_BSD = hidden_BSD[:, step_S] + self.tower.embed_positions(step_S)
        hidden_BSD = nn_f.dropout(hidden_BSD, self.tower.dropout, self.training)
        visible_SS = rows.visible().to(mel_BTF.device)
        mask_B1SS = visible_SS & (step_S < steps_B[:, None])[:, None, None]
        for layer in self.tower.layers:
            hidden_BSD = layer(hidden_BSD, mask_B1SS)
        return self.close(hidden_BSD[:, :num_steps])

    def close(self, hidden_BSD: Tensor) -> Tensor:
        """What follows the last layer, pooling and a norm: whole outputs, [B, P, D]."""
        if self.pool > 1:
            whole = hidden_BSD.shape[1] // self.pool * self.pool
            hidden_BSD = hidden_BSD[:, :whole]
            if whole:
                hidden_BSD = self.tower.avg_pooler(hidden_BSD.transpose(1, 2)).transpose(1, 2)
        return self.tower.layer_norm(hidden_BSD)

    def check_length(self, num_steps: int) -> None:
        """Refuse (TooLongError) more steps S than there are position embeddings."""
        limit = self.tower.config.max_source_positions
        if num_steps > limit:
            raise TooLongError(
                f"the recording has {num_steps} encoder steps, and the encoder has {limit} "
                "positions: cut it into turns, or stream it (a stream starts anew in time)"
            )

    def rows(self, first: int, stop: int, num_known: int, block: int) -> "Rows":
        """What is encoded together: steps, then copies of those that their blocks look ahead to.

        From `first`, with which a block begins, to before `stop`; `num_known` steps, at least
        `stop`, are there to look at.
        """
        # A block encodes what it looks ahead to on its own behalf, as in Emformer (Shi et al. 2021,
        # arXiv 2010.10759), so that looking ahead does not add up over layers.
        lookahead, offset = self.attention.lookahead, self.attention.offset
        step_S = torch.arange(first, stop)
        block_S = (step_S + offset) // block
        if lookahead and first < stop:
            owner = torch.arange(int(block_S[0]), int(block_S[-1]) + 1)
            ahead = torch.arange(lookahead)
            copy_S = ((owner[:, None] + 1) * block - offset + ahead).flatten()
            owner_S = owner.repeat_interleave(lookahead)
            exists = copy_S < num_known
            step_S = torch.cat([step_S, copy_S[exists]])
            block_S = torch.cat([block_S, owner_S[exists]])
        return Rows(step_S, block_S, stop - first)

    def _block(self) -> int:
        drawn = self.attention.drawn
        if not (self.training and drawn):
            return self.attention.block
        return drawn[int(torch.randint(len(drawn), ()))]

    def _convolve(self, mel_BTF: Tensor, num_frames_B: Tensor) -> Tensor:
        """The two convolutions; what lies after the end of a recording counts as zero."""
        inside_B1T = (
            torch.arange(mel_BTF.shape[1], device=mel_BTF.device) < num_frames_B[:, None]
        )[:, None]
        mel_BFT = mel_BTF.transpose(1, 2).to(self.tower.conv1.weight.dtype) * inside_B1T
        hidden_BDT = nn_f.gelu(self.tower.conv1(mel_BFT)) * inside_B1T
        return nn_f.gelu(self.tower.conv2(hidden_BDT)).transpose(1, 2)
