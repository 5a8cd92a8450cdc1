"""Augmentation of recordings in training.

A function of the random generator it is given, so that a resumed run hears what the first would.
Legend: N = audio samples, T = mel frames, F = mel bands.
"""

import numpy as np
from pydantic import Field

from proactivellm.files.toml import Strict
from proactivellm.files.values import Natural, Range, Share
from proactivellm.modality.speech.extra import needed
from proactivellm.modality.speech.resample import RATE

_FRAME = RATE // 50  # samples, in which a level is taken
_GAP_FRAMES = 3  # between words, at least


class Augmentation(Strict):
    """How recordings are changed while a model is trained on them."""

    # Range of the speed perturbation (Ko et al. 2015), pitch included; (1, 1) = none.
    speed: Range = (1.0, 1.0)
    # Range of the silence before and after what is said, to which it is cut or padded; without it,
    # sets of recordings are told apart by their edges. None = as they are.
    edges_s: Range | None = None
    # Most pauses that are put in where it is quiet between words, and the range of their length.
    pauses: Natural = 0
    pauses_s: Range = (0.1, 0.8)
    # Share of the recordings that are heard in a room, and the range of its reverberation time, in
    # which a sound falls by 60 dB.
    room_share: Share = 0.0
    room_s: Range = (0.15, 0.6)
    gain_db: Range = (0.0, 0.0)  # range of the level that is added
    noise_share: Share = 0.0  # share of the recordings that noise is added to
    noise_db: Range = (5.0, 30.0)  # range of the signal-to-noise ratio then
    narrow_share: Share = 0.0  # share of the recordings that are cut to telephone bandwidth, 4 kHz
    time_masks: Natural = 0  # number of masks over time (SpecAugment, Park et al. 2019)
    time_mask_s: float = Field(default=0.4, gt=0.0)  # longest of them, in seconds
    band_masks: Natural = 0  # number of masks over mel bands
    band_mask: int = Field(default=10, ge=1)  # most bands that one of them covers
    # Share of the samples that are replaced by silence or noise, in which there is nothing to write
    nothing_share: Share = 0.0


def perturb(samples_N: np.ndarray, wish: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Changes speed, edges, pauses, room, bandwidth, noise and level as the settings wish."""
    soxr = needed("soxr")
    speed = rng.uniform(*wish.speed)
    if speed != 1.0:
        samples_N = soxr.resample(samples_N, RATE * speed, RATE, quality="LQ")
    if wish.edges_s is not None:
        samples_N = _with_edges(samples_N, rng.uniform(*wish.edges_s, size=2))
    if wish.pauses:
        samples_N = _with_pauses(samples_N, wish, rng)
    if wish.room_share and rng.random() < wish.room_share:
        samples_N = _in_room(samples_N, rng.uniform(*wish.room_s), rng)
    if rng.random() < wish.narrow_share:
        narrow = soxr.resample(samples_N, RATE, RATE // 2, quality="LQ")
        samples_N = soxr.resample(narrow, RATE // 2, RATE, quality="LQ")
    if rng.random() < wish.noise_share:
        ratio = 10 ** (-rng.uniform(*wish.noise_db) / 20)
        level = float(np.sqrt(np.mean(samples_N**2))) * ratio
        samples_N = samples_N + level * _noise(len(samples_N), rng)
    samples_N = samples_N * np.float32(10 ** (rng.uniform(*wish.gain_db) / 20))
    return np.clip(samples_N, -1.0, 1.0).astype(np.float32)


def _loud(samples_N: np.ndarray) -> np.ndarray:
    """The frames that are louder than the peak less 30 dB, by number."""
    frames = samples_N[: len(samples_N) // _FRAME * _FRAME].reshape(-1, _FRAME)
    level = np.sqrt((frames**2).mean(1)) if len(frames) else np.zeros(1)
    return np.flatnonzero(level > level.max() * 10 ** (-30 / 20))


def _with_edges(samples_N: np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """Cuts or pads the silence around what is loud."""
    loud = _loud(samples_N)
    if not len(loud):
        return samples_N
    before, after = (int(edge_s * RATE) for edge_s in edges_s)
    start, end = loud[0] * _FRAME - before, (loud[-1] + 1) * _FRAME + after
    padded = np.pad(samples_N[max(0, start) : end], (max(0, -start), 0))
    return np.pad(padded, (0, max(0, end - len(samples_N))))


def _with_pauses(samples_N: np.ndarray, wish: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Makes quiet places longer, each by noise of its own level: no room is as quiet as zeros."""
    loud = _loud(samples_N)
    # A shorter gap may be the closure of a consonant, in which nobody pauses.
    gaps = np.flatnonzero(np.diff(loud) > _GAP_FRAMES)
    count = min(int(rng.integers(0, wish.pauses + 1)), len(gaps))
    parts, start = [], 0
    for gap in np.sort(rng.choice(gaps, count, replace=False)) if count else ():
        first, last = (loud[gap] + 1) * _FRAME, loud[gap + 1] * _FRAME
        level = float(np.sqrt(np.mean(samples_N[first:last] ** 2)))
        pause = level * rng.standard_normal(int(rng.uniform(*wish.pauses_s) * RATE))
        middle = (first + last) // 2
        parts += [samples_N[start:middle], pause.astype(np.float32)]
        start = middle
    return np.concatenate([*parts, samples_N[start:]])


def _in_room(samples_N: np.ndarray, room_s: float, rng: np.random.Generator) -> np.ndarray:
    """Adds a tail of reflections: noise that decays at the pace of the room (Moorer 1979).

    The direct sound stays where it was. The level stays, too.
    """
    count = int(room_s * RATE)
    tail = rng.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    tail[: RATE // 500] = 0.0  # 2 ms: the first wall is so far away
    direct_db = rng.uniform(0.0, 12.0)  # above the reflections: near the speaker, or across a room
    response = tail * 10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2))
    response[0] = 1.0
    size = 1 << (len(samples_N) + count).bit_length()
    heard = np.fft.irfft(np.fft.rfft(samples_N, size) * np.fft.rfft(response, size), size)
    heard = heard[: len(samples_N)]
    power = np.sqrt(np.mean(samples_N**2) / max(float(np.mean(heard**2)), 1e-12))
    return (heard * power).astype(np.float32)


def nothing(count: int, rng: np.random.Generator) -> np.ndarray:
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


def mask(mel_TF: np.ndarray, wish: Augmentation, hop: int, rng: np.random.Generator) -> np.ndarray:
    """SpecAugment: what is masked has the mean of the recording."""
    mel_TF = mel_TF.copy()
    num_frames, num_bands = mel_TF.shape
    longest = max(1, int(wish.time_mask_s * RATE / hop))
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
