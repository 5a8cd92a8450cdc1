"""Recordings as training samples: waveforms, augmentation, mel frames in place of token ids.

Augmentation is a function of the random generator it is given, so that a resumed run hears what the
first would. Legend: N = audio samples, T = mel frames, F = mel bands.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from proactivellm.config import Strict
from proactivellm.modality.speech.extra import needed
from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.files import read_audio
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.gate import Gate, GateSettings
from proactivellm.modality.speech.joined import GAP_S
from proactivellm.modality.speech.resample import RATE
from proactivellm.model.packing import AUDIO_ID, Sample
from proactivellm.tasks.item import Item
from proactivellm.train.values import Natural, Range, Share

if TYPE_CHECKING:
    from proactivellm.train.data import SampleEncoder

_PCM16 = 32767.0


class Augmentation(Strict):
    """What is done to recordings while a model is trained on them.

    Attributes:
        speed: range of the speed perturbation (Ko et al. 2015), pitch included; (1, 1) = none.
        edges_s: range of the silence before and after what is said, to which it is cut or padded;
            without it, sets of recordings are told apart by their edges. None = as they are.
        gain_db: range of the level that is added.
        noise_share: share of the recordings that noise is added to.
        noise_db: range of the signal-to-noise ratio then.
        narrow_share: share of the recordings of which only what a telephone passes (up to 4 kHz)
            is left.
        time_masks: SpecAugment (Park et al. 2019): masks over time.
        time_mask_s: longest of them, in seconds.
        band_masks: masks over mel bands.
        band_mask: most bands that one of them covers.
        nothing_share: share of the samples that are replaced by silence or noise, in which there is
            nothing to write.
    """

    speed: Range = (1.0, 1.0)
    edges_s: Range | None = None
    gain_db: Range = (0.0, 0.0)
    noise_share: Share = 0.0
    noise_db: Range = (5.0, 30.0)
    narrow_share: Share = 0.0
    time_masks: Natural = 0
    time_mask_s: float = Field(default=0.4, gt=0.0)
    band_masks: Natural = 0
    band_mask: int = Field(default=10, ge=1)
    nothing_share: Share = 0.0


class Recordings:
    """Turns instances with audio into samples; waveforms are read once and kept in 16 bits.

    Args:
        front_end: makes features and knows how many embeddings they become.
        augmentation: what is done to them; nothing where no random generator is given.
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
        """One sample of one or more recordings, joined.

        Args:
            items: with audio; questions of later ones are left out.
            encoder: tokenises question and target.
            rng: of the augmentation; None = none.

        Returns:
            The sample, with `features`.
        """
        target = " ".join(item.target for item in items if item.target)
        question = items[0].source
        nothing = rng is not None and rng.random() < self.augmentation.nothing_share
        gap = np.zeros(int(GAP_S * RATE), np.float32)
        parts = [part for item in items for part in (gap, self._waveform(item.media))][1:]
        samples_N = np.concatenate(parts)
        if nothing:
            assert rng is not None
            samples_N, target = _nothing(len(samples_N), rng), ""
        elif rng is not None:
            samples_N = _perturb(samples_N, self.augmentation, rng)
        mel_TF = log_mel(samples_N, self.extractor)
        if rng is not None:
            mel_TF = self._mask(mel_TF, rng)
        units = [[AUDIO_ID] * size for size in self.unit_sizes(len(mel_TF))]
        text = encoder.encode(question, target, units)
        return text.with_features(mel_TF, transcript="" if question else target)

    def longest(self, items: Sequence[Item], encoder: "SampleEncoder") -> Sample:
        """The sample of one or more recordings at its longest, whatever augmentation draws.

        Args:
            items: with audio; questions of later ones are left out.
            encoder: tokenises question and target.

        Returns:
            The sample, without features.
        """
        gaps = (len(items) - 1) * int(GAP_S * RATE)
        count = gaps + sum(len(self._waveform(item.media)) for item in items)
        count = 1 + int(count / min(self.augmentation.speed[0], 1.0))
        if self.augmentation.edges_s is not None:
            count += 2 * int(self.augmentation.edges_s[1] * RATE)
        units = self.unit_sizes(-(-count // self.extractor.hop_length))
        target = " ".join(item.target for item in items if item.target)
        return encoder.encode(items[0].source, target, [[AUDIO_ID] * size for size in units])

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

    def _mask(self, mel_TF: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """SpecAugment: what is masked has the mean of the recording."""
        wish, mel_TF = self.augmentation, mel_TF.copy()
        num_frames, num_bands = mel_TF.shape
        longest = max(1, int(wish.time_mask_s * RATE / self.extractor.hop_length))
        mean = mel_TF.mean() if mel_TF.size else 0.0
        for _ in range(wish.time_masks):
            width = int(rng.integers(0, min(longest, num_frames // 4) + 1))
            start = int(rng.integers(0, max(1, num_frames - width)))
            mel_TF[start : start + width] = mean
        for _ in range(wish.band_masks):
            width = int(rng.integers(0, min(wish.band_mask, num_bands) + 1))
            start = int(rng.integers(0, max(1, num_bands - width)))
            mel_TF[:, start : start + width] = mean
        return mel_TF


def _perturb(samples_N: np.ndarray, wish: Augmentation, rng: np.random.Generator) -> np.ndarray:
    soxr = needed("soxr")
    speed = rng.uniform(*wish.speed)
    if speed != 1.0:
        samples_N = soxr.resample(samples_N, RATE * speed, RATE, quality="LQ")
    if wish.edges_s is not None:
        samples_N = _with_edges(samples_N, rng.uniform(*wish.edges_s, size=2))
    if rng.random() < wish.narrow_share:
        narrow = soxr.resample(samples_N, RATE, RATE // 2, quality="LQ")
        samples_N = soxr.resample(narrow, RATE // 2, RATE, quality="LQ")
    if rng.random() < wish.noise_share:
        ratio = 10 ** (-rng.uniform(*wish.noise_db) / 20)
        level = float(np.sqrt(np.mean(samples_N**2))) * ratio
        samples_N = samples_N + level * _noise(len(samples_N), rng)
    samples_N = samples_N * np.float32(10 ** (rng.uniform(*wish.gain_db) / 20))
    return np.clip(samples_N, -1.0, 1.0).astype(np.float32)


def _with_edges(samples_N: np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """Cuts or pads the silence around the part that is louder than the peak less 30 dB."""
    size = RATE // 50
    frames = samples_N[: len(samples_N) // size * size].reshape(-1, size)
    level = np.sqrt((frames**2).mean(1)) if len(frames) else np.zeros(1)
    loud = np.flatnonzero(level > level.max() * 10 ** (-30 / 20))
    if not len(loud):
        return samples_N
    before, after = (int(edge_s * RATE) for edge_s in edges_s)
    start, end = loud[0] * size - before, (loud[-1] + 1) * size + after
    padded = np.pad(samples_N[max(0, start) : end], (max(0, -start), 0))
    return np.pad(padded, (0, max(0, end - len(samples_N))))


def _nothing(count: int, rng: np.random.Generator) -> np.ndarray:
    """Silence, or noise of any level."""
    if rng.random() < 0.1:
        return np.zeros(count, np.float32)
    noise = 10 ** (rng.uniform(-80.0, -10.0) / 20) * _noise(count, rng)
    return np.clip(noise, -1.0, 1.0).astype(np.float32)


def _noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of power 1 whose spectrum falls by 0 (white) to 12 dB per octave, [N]."""
    size = 1 << (max(count, 2) - 1).bit_length()
    spectrum = np.fft.rfft(rng.standard_normal(size))
    slope = rng.uniform(0.0, 2.0)
    spectrum /= np.maximum(np.arange(len(spectrum)), size * 50 / RATE) ** slope
    noise = np.fft.irfft(spectrum)[:count]
    return (noise / max(float(noise.std()), 1e-12)).astype(np.float32)
