"""Signals made by formula: a voice that Silero VAD takes for speech, and noise."""

import numpy as np

RATE = 16_000


def voice(seconds: float, rate: int = RATE) -> np.ndarray:
    """A source-filter voice: harmonics of a gliding pitch through three moving resonances."""
    t = np.arange(int(seconds * rate)) / rate
    pitch = 120 + 20 * np.sin(2 * np.pi * 2.5 * t) + 10 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = (
        (500 + 250 * np.sin(2 * np.pi * 1.7 * t), 80),
        (1500 + 500 * np.sin(2 * np.pi * 2.3 * t + 1), 120),
        (2500 + 200 * np.sin(2 * np.pi * 1.1 * t), 160),
    )
    samples = np.zeros_like(t)
    for harmonic in range(1, 30):
        gain = sum(
            1 / (1 + ((harmonic * pitch - centre) / width) ** 2) for centre, width in formants
        )
        samples += gain / harmonic**0.5 * np.sin(harmonic * phase)
    samples *= np.clip(np.sin(2 * np.pi * 4 * t) + 0.7, 0, 1)  # four syllables a second
    return (0.3 * samples / np.abs(samples).max()).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    """Digital silence at 16 kHz."""
    return np.zeros(int(seconds * RATE), np.float32)


def noise(seconds: float, dbfs: float, rate: int = RATE) -> np.ndarray:
    """White noise of a level in dB below full scale, the same on each call."""
    samples = np.random.default_rng(0).standard_normal(int(seconds * rate))
    return np.clip(samples * 10 ** (dbfs / 20), -1, 1).astype(np.float32)


def ragged(samples: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """Cuts samples into pushes of uneven lengths, empty ones among them."""
    sizes = np.random.default_rng(seed).choice(
        [0, 1, 7, 160, 511, 512, 513, 4001], 4 * len(samples)
    )
    cuts = np.cumsum(sizes)
    return np.split(samples, cuts[cuts < len(samples)])
