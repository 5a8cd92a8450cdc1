"""A causal encoder, fed mel frames as they come: what comes out equals `CausalEncoder.forward`.

A block of steps is encoded as soon as all frames that it needs have arrived, together with those of
other streams (`encoder_work.py`). Legend: T = mel
frames, F = mel bands, S = encoder steps (two frames each), P = steps after pooling, D = encoder
width; B = 1.
"""

from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as nn_f
from torch import Tensor

from proactivellm.modality.speech.encoder import CausalEncoder
from proactivellm.modality.speech.encoder_work import Part, attention, convolution
from proactivellm.modality.speech.memory import ATTENTION, Memory, register
from proactivellm.modality.speech.together import Doing, alone

_COUNTS = ("num_frames", "num_known", "num_encoded", "num_attended", "origin")


class EncoderStream:
    """The encoder, in eval mode, at work on one recording; a value that `clone` copies.

    ValueError if a block has more steps than the encoder has positions.
    """

    def __init__(self, encoder: CausalEncoder) -> None:
        self.encoder = encoder
        tower, attention = encoder.tower, encoder.attention
        self._limit = int(tower.config.max_source_positions)
        ahead = attention.block + attention.lookahead
        if ahead > self._limit:
            raise ValueError(
                f"a block of {ahead} encoder steps (lookahead included) cannot be streamed: the "
                f"encoder has {self._limit} positions; take a smaller block"
            )
        if tower.config._attn_implementation != ATTENTION:
            register()
            tower.set_attn_implementation(ATTENTION)
        # Where position embeddings end, a stream starts anew at a block boundary, and the newest
        # half of its steps take the positions from 0 on: memory and time per frame are bounded.
        # What is kept for that are whole blocks, at most half of the positions.
        self._num_kept = min(self._limit // 2, self._limit - ahead) // attention.block
        self._num_kept *= attention.block
        weight = tower.conv1.weight
        self._mel_1FT = weight.new_zeros(1, weight.shape[1], 0)  # frames that steps to come need
        # Steps after the convolutions, in pieces: those to come, and those kept for a new start.
        self._hidden_1SD: list[Tensor] = []
        self._unpooled_1SD = weight.new_zeros(1, 0, encoder.width)  # encoded, no whole output yet
        self._memories = [Memory() for _ in tower.layers]
        self.num_frames = 0
        self.num_known = 0  # steps that have been through the convolutions
        self.num_encoded = 0  # steps that have been through the layers
        self.num_attended = 0  # the step after the last in the memories: less, at a new start
        self.origin = 0  # the first step in the memories, which has position 0

    def push(self, mel_TF: np.ndarray) -> Tensor:
        """Takes the next frames; returns the outputs that are complete now, [P, D]."""
        return alone(self.hear(mel_TF))

    def finish(self, mel_TF: np.ndarray) -> Tensor:
        """Takes the last frames, with zeros after them; returns the last outputs, [P, D]."""
        return alone(self.hear(mel_TF, last=True))

    def hear(self, mel_TF: np.ndarray, last: bool = False) -> Doing[Tensor]:
        """Does what `push`, or of the `last` frames `finish`, does."""
        self._take(mel_TF)
        if last:
            ready = num_steps = self.encoder.num_steps(self.num_frames)
            needed = num_steps > self.num_known
        else:
            num_steps = (self.num_frames - 1) // 2
            ready = self._block_end(num_steps - self.encoder.attention.lookahead)
            needed = ready > self.num_encoded
        if needed:
            yield from self._convolve_to(num_steps, last)
        return (yield from self._encode_to(ready))

    def clone(self) -> Self:
        """An independent copy that continues from here."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)  # but for the memories, tensors are never written to
        twin._hidden_1SD = list(self._hidden_1SD)
        twin._memories = [Memory(*memory.tensors()) for memory in self._memories]
        return twin

    def state_dict(self) -> dict[str, Any]:
        """The state as integers, tensors and lists of tensors."""
        state: dict[str, Any] = {name: getattr(self, name) for name in _COUNTS}
        state |= {"mel": self._mel_1FT, "unpooled": self._unpooled_1SD}
        state["hidden"] = list(self._hidden_1SD)
        state["memories"] = [memory.tensors() for memory in self._memories]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of a stream with the same encoder."""
        for name in _COUNTS:
            setattr(self, name, int(state[name]))
        like = self._unpooled_1SD
        self._mel_1FT, self._unpooled_1SD = state["mel"].to(like), state["unpooled"].to(like)
        self._hidden_1SD = [hidden.to(like) for hidden in state["hidden"]]
        self._memories = [
            Memory() if keys is None else Memory(keys.to(like).clone(), values.to(like).clone())
            for keys, values in state["memories"]
        ]

    def _block_end(self, step: int) -> int:
        """The last end of a block that is not after this step."""
        block, offset = self.encoder.attention.block, self.encoder.attention.offset
        return max(0, (step + offset) // block * block - offset)

    def _take(self, mel_TF: np.ndarray) -> None:
        self.num_frames += len(mel_TF)
        new_1FT = torch.from_numpy(np.ascontiguousarray(mel_TF.T))[None]
        self._mel_1FT = torch.cat([self._mel_1FT, new_1FT.to(self._mel_1FT)], dim=2)

    def _convolve_to(self, num_steps: int, last: bool) -> Doing[None]:
        # Step s needs frames 2 s - 2 to 2 s + 2, and the first frame that is there is frame 2 s - 2
        # of the next step. The convolutions put zeros around what they are given; rows that have
        # seen zeros from elsewhere than the true begin and end are dropped.
        first = self.num_frames - self._mel_1FT.shape[2]
        piece = self._mel_1FT[:, :, : 2 * num_steps + 1 - first]
        hidden_1SD = yield convolution(self.encoder, piece, last)
        self._hidden_1SD.append(hidden_1SD[:, 1:] if self.num_known else hidden_1SD)
        self._mel_1FT = self._mel_1FT[:, :, 2 * num_steps - 2 - first :]
        self.num_known = num_steps

    def _encode_to(self, stop: int) -> Doing[Tensor]:
        """Encodes the steps up to `stop`; returns their outputs, [P, D]."""
        ahead, parts_1SD = self.encoder.attention.lookahead, [self._unpooled_1SD]
        while self.num_encoded < stop:
            goal = stop
            if min(goal + ahead, self.num_known) > self.origin + self._limit:
                goal = self._block_end(self.origin + self._limit - ahead)
            if goal > self.num_encoded:
                parts_1SD.append((yield from self._attend_to(goal)))
            else:  # out of positions
                self.origin = self.num_attended = self.num_encoded - self._num_kept
                self._memories = [Memory() for _ in self._memories]
        self._forget()
        encoded_1SD = torch.cat(parts_1SD, dim=1)
        whole = encoded_1SD.shape[1] // self.encoder.pool * self.encoder.pool
        self._unpooled_1SD = encoded_1SD[:, whole:]
        return self.encoder.close(encoded_1SD[:, :whole])[0]

    def _attend_to(self, stop: int) -> Doing[Tensor]:
        """Runs the layers on the steps up to `stop`; returns those that are new, [1, S, D]."""
        tower, device = self.encoder.tower, self._unpooled_1SD.device
        held = self.num_attended - self.origin
        block = self.encoder.attention.block
        rows = self.encoder.rows(self.num_attended, stop, self.num_known, block)
        mask_11SK = None  # all see all
        if rows.block_S[0] != rows.block_S.max():
            visible_SK = nn_f.pad(rows.visible(), (held, 0), value=True)
            mask_11SK = visible_SK[None, None].to(device)
        hidden_1SD = self._hidden(rows.step_S.to(device))
        hidden_1SD = hidden_1SD + tower.embed_positions((rows.step_S - self.origin).to(device))
        part = Part(hidden_1SD, mask_11SK, self._memories, held, rows.num_steps)
        hidden_1SD = yield attention(self.encoder, part)
        num_again = self.num_encoded - self.num_attended  # out already, before a new start
        self.num_attended = self.num_encoded = stop
        return hidden_1SD[:, num_again:]

    def _hidden(self, step_S: Tensor) -> Tensor:
        """Steps as they are after the convolutions, [1, S, D]."""
        pieces, first = [], self.num_known
        for piece in reversed(self._hidden_1SD):
            pieces.append(piece)
            first -= piece.shape[1]
            if first <= step_S[0]:
                break
        return torch.cat(pieces[::-1], dim=1)[:, step_S - first]

    def _forget(self) -> None:
        """Drops the pieces that not even a new start would need."""
        first = self.num_known - sum(piece.shape[1] for piece in self._hidden_1SD)
        while self._hidden_1SD:
            first += self._hidden_1SD[0].shape[1]
            if first > self.num_encoded - self._num_kept:
                break
            self._hidden_1SD.pop(0)
