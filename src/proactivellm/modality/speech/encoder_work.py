"""What streams of one encoder compute together: its convolutions, and its layers.

Legend: N = streams, T = mel frames, F = mel bands, S = encoder steps (two frames each), D = encoder
width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as nn_f
from torch import Tensor

from proactivellm.modality.speech.encoder import CausalEncoder
from proactivellm.modality.speech.memory import Memory, Share
from proactivellm.modality.speech.together import Work, apart

JUDGE, CONVOLVE, ATTEND, PROJECT = range(4)  # in the order in which a stream does them


class Part(NamedTuple):
    """The rows of one stream that go through the layers together with those of others."""

    hidden_1SD: Tensor  # with their positions
    mask_11SK: Tensor | None  # what each sees of what is held and of the rows; None = everything
    memories: Sequence[Memory]  # one for each layer
    num_held: int  # steps in the memories
    num_kept: int  # rows that stay; those after them are copies for looking ahead


def convolution(encoder: CausalEncoder, mel_1FT: Tensor, last: bool) -> Work:
    """The two convolutions of a piece, to [1, S, D]; zeros come after the `last` one alone."""
    alike = mel_1FT.shape[2], last
    return Work(CONVOLVE, _convolve_last if last else _convolve, encoder, mel_1FT, alike)


def attention(encoder: CausalEncoder, part: Part) -> Work:
    """All layers, for rows of which the kept ones come out, [1, S, D]."""
    return Work(ATTEND, _attend, encoder, part)


def _convolve(
    encoder: CausalEncoder, pieces: Sequence[Tensor], last: bool = False
) -> Sequence[Tensor]:
    hidden_NDT = nn_f.gelu(encoder.tower.conv1(torch.cat(list(pieces))))
    if not last:  # its last frame has seen a zero in place of the next one
        hidden_NDT = hidden_NDT[:, :, :-1]
    return apart(nn_f.gelu(encoder.tower.conv2(hidden_NDT)).transpose(1, 2))


def _convolve_last(encoder: CausalEncoder, pieces: Sequence[Tensor]) -> Sequence[Tensor]:
    return _convolve(encoder, pieces, last=True)


def _attend(encoder: CausalEncoder, parts: Sequence[Part]) -> Sequence[Tensor]:
    """One row of all parts goes through the layers; a part attends to its own steps alone."""
    sizes = [part.hidden_1SD.shape[1] for part in parts]
    for part in parts:  # an attempt that failed may have left steps behind
        for memory in part.memories:
            memory.num_steps = part.num_held
    hidden_1SD = torch.cat([part.hidden_1SD for part in parts], dim=1)
    for index, layer in enumerate(encoder.tower.layers):
        shares = [
            Share(part.memories[index], size, part.mask_11SK)
            for part, size in zip(parts, sizes, strict=True)
        ]
        hidden_1SD = layer(hidden_1SD, None, shares=shares)
    for part in parts:
        for memory in part.memories:
            memory.num_steps = part.num_held + part.num_kept  # copies are not kept
    pieces_1SD = hidden_1SD.split(sizes, dim=1)
    return [piece[:, : part.num_kept] for piece, part in zip(pieces_1SD, parts, strict=True)]
