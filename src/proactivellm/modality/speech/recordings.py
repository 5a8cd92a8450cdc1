"""Recordings to train on: waveforms, augmentation, mel frames.

Legend: N = audio samples, T = mel frames, F = mel bands.
"""

from collections.abc import Sequence

import numpy as np

from proactivellm.modality.base import Example, media_units
from proactivellm.modality.speech.augmentation import Augmentation, mask, nothing, perturb
from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.files import read_audio
from proactivellm.modality.speech.front_end import KIND, SpeechFrontEnd
from proactivellm.modality.speech.gate import Gate, GateSettings
from proactivellm.modality.speech.joined import GAP_S
from proactivellm.modality.speech.resample import RATE

_PCM16 = 32767.0
_GAP = int(GAP_S * RATE)


class Recordings:
    """The `Examples` of speech; waveforms are read once and kept in 16 bits.

    Args:
        gate: what it holds back is left out, as it is while streaming; None = nothing is.
    """

    kind = KIND
    length_per_s = 25.0

    def __init__(
        self, front_end: SpeechFrontEnd, augmentation: Augmentation, gate: GateSettings | None
    ) -> None:
        self.front_end = front_end
        self.extractor = front_end.extractor
        self.augmentation = augmentation
        self.gate = gate
        self._waveforms: dict[tuple[str, ...], np.ndarray] = {}

    @property
    def unit_s(self) -> None:
        """Not told: augmentation changes the pace, and a gate cuts pauses out."""

    def read(
        self, sources: Sequence[tuple[str, ...]], rng: np.random.Generator | None = None
    ) -> Example:
        """Mel frames [T, F] of recordings, joined."""
        silent = rng is not None and rng.random() < self.augmentation.nothing_share
        samples_N = _joined([self._waveform(files) for files in sources])
        if rng is not None:
            wish = self.augmentation
            samples_N = nothing(len(samples_N), rng) if silent else perturb(samples_N, wish, rng)
        mel_TF = log_mel(samples_N, self.extractor)
        if rng is not None:
            mel_TF = mask(mel_TF, self.augmentation, self.extractor.hop_length, rng)
        units = media_units(self.front_end.unit_sizes(len(mel_TF)))
        return Example(mel_TF, units, says_nothing=silent)

    def longest(self, sources: Sequence[tuple[str, ...]]) -> list[list[int]]:
        """The units at the slowest speed, with the widest edges and all pauses."""
        count = (len(sources) - 1) * _GAP + sum(len(self._waveform(files)) for files in sources)
        count = 1 + int(count / min(self.augmentation.speed[0], 1.0))
        if self.augmentation.edges_s is not None:
            count += 2 * int(self.augmentation.edges_s[1] * RATE)
        count += self.augmentation.pauses * int(self.augmentation.pauses_s[1] * RATE)
        num_frames = -(-count // self.extractor.hop_length)
        encoder = self.front_end.encoder
        encoder.check_length(encoder.num_steps(num_frames))
        return media_units(self.front_end.unit_sizes(num_frames))

    def _waveform(self, files: tuple[str, ...]) -> np.ndarray:
        """The joined files, without what the gate holds back."""
        if files not in self._waveforms:
            samples_N = self._gated(_joined([read_audio(file) for file in files]))
            self._waveforms[files] = np.round(samples_N * _PCM16).astype(np.int16)
        return self._waveforms[files].astype(np.float32) / np.float32(_PCM16)

    def _gated(self, samples_N: np.ndarray) -> np.ndarray:
        if self.gate is None:
            return samples_N
        gate = Gate(self.gate)
        passages = [*gate.push(samples_N), *gate.finish()]
        # A recording in which the gate hears nothing is one of something all the same.
        return np.concatenate([passage.samples for passage in passages]) if passages else samples_N


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.zeros(_GAP, np.float32)
    return np.concatenate([part for each in parts for part in (gap, each)][1:])
