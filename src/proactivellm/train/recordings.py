"""Recordings as training samples: waveforms, augmentation, mel frames in place of token ids.

Legend: N = audio samples, T = mel frames, F = mel bands.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from proactivellm.core.packing import MEDIA_ID, Sample
from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.files import read_audio
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.gate import Gate, GateSettings
from proactivellm.modality.speech.joined import GAP_S
from proactivellm.modality.speech.resample import RATE
from proactivellm.tasks.item import Item
from proactivellm.train.augmentation import Augmentation, mask, nothing, perturb

if TYPE_CHECKING:
    from proactivellm.train.samples import SampleEncoder

_PCM16 = 32767.0


class Recordings:
    """Turns items with audio into samples; waveforms are read once and kept in 16 bits.

    Args:
        augmentation: done only where a random generator is given.
        gate: what it holds back is left out, as it is while streaming; None = nothing is.
    """

    def __init__(
        self, front_end: SpeechFrontEnd, augmentation: Augmentation, gate: GateSettings | None
    ) -> None:
        self.extractor = front_end.extractor
        self.unit_sizes: Callable[[int], list[int]] = front_end.unit_sizes
        self.augmentation = augmentation
        self.gate = gate
        self._waveforms: dict[tuple[str, ...], np.ndarray] = {}

    def encode(
        self,
        items: Sequence[Item],
        encoder: "SampleEncoder",
        rng: np.random.Generator | None = None,
    ) -> Sample:
        """One sample, with `features`, of one or more recordings, joined.

        Args:
            rng: of the augmentation; None = none.
        """
        target = " ".join(item.target for item in items if item.target)
        question = items[0].source
        silent = rng is not None and rng.random() < self.augmentation.nothing_share
        gap = np.zeros(int(GAP_S * RATE), np.float32)
        parts = [part for item in items for part in (gap, self._waveform(item.media))][1:]
        samples_N = np.concatenate(parts)
        if silent:
            assert rng is not None
            samples_N, target = nothing(len(samples_N), rng), ""
        elif rng is not None:
            samples_N = perturb(samples_N, self.augmentation, rng)
        mel_TF = log_mel(samples_N, self.extractor)
        if rng is not None:
            mel_TF = mask(mel_TF, self.augmentation, self.extractor.hop_length, rng)
        units = [[MEDIA_ID] * size for size in self.unit_sizes(len(mel_TF))]
        text = encoder.encode(question, target, units)
        return text.with_features(mel_TF, transcript="" if question else target)

    def longest(self, items: Sequence[Item], encoder: "SampleEncoder") -> Sample:
        """The sample of recordings at its longest, whatever augmentation draws; without features.

        Questions of items after the first are left out.
        """
        gaps = (len(items) - 1) * int(GAP_S * RATE)
        count = gaps + sum(len(self._waveform(item.media)) for item in items)
        count = 1 + int(count / min(self.augmentation.speed[0], 1.0))
        if self.augmentation.edges_s is not None:
            count += 2 * int(self.augmentation.edges_s[1] * RATE)
        units = self.unit_sizes(-(-count // self.extractor.hop_length))
        target = " ".join(item.target for item in items if item.target)
        return encoder.encode(items[0].source, target, [[MEDIA_ID] * size for size in units])

    def _waveform(self, files: tuple[str, ...]) -> np.ndarray:
        """The joined files, without what the gate holds back."""
        if files not in self._waveforms:
            gap = np.zeros(int(GAP_S * RATE), np.float32)
            parts = [part for file in files for part in (gap, read_audio(file))][1:]
            samples_N = self._gated(np.concatenate(parts))
            self._waveforms[files] = np.round(samples_N * _PCM16).astype(np.int16)
        return self._waveforms[files].astype(np.float32) / np.float32(_PCM16)

    def _gated(self, samples_N: np.ndarray) -> np.ndarray:
        if self.gate is None:
            return samples_N
        gate = Gate(self.gate)
        pieces = [*gate.push(samples_N), *gate.finish()]
        # A recording in which the gate hears nothing is one of something all the same.
        return np.concatenate([piece.samples for piece in pieces]) if pieces else samples_N
