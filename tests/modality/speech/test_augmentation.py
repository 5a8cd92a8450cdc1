"""Pauses and rooms in recordings to train on."""

import numpy as np
import pytest

from proactivellm.modality.speech.augmentation import Augmentation, perturb
from proactivellm.modality.speech.resample import RATE


def tone(seconds: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440.0 * np.arange(round(RATE * seconds)) / RATE)


def words(gaps_s: list[float]) -> np.ndarray:
    """Tones of 0.2 s with faint noise between them."""
    noise, parts = np.random.default_rng(0), [tone(0.2)]
    for gap_s in gaps_s:
        parts += [1e-3 * noise.standard_normal(round(RATE * gap_s)), tone(0.2)]
    return np.concatenate(parts).astype(np.float32)


def test_pauses_are_put_between_words_and_not_into_them():
    samples, wish = words([0.12, 0.04, 0.12]), Augmentation(pauses=3, pauses_s=(0.3, 0.5))
    counts = set()
    for seed in range(20):
        heard = perturb(samples, wish, np.random.default_rng(seed))
        added_s = (len(heard) - len(samples)) / RATE
        # The gap of 40 ms may be the closure of a consonant: two places are left.
        counts.add(count := round(added_s / 0.4))
        assert 0.3 * count <= added_s <= 0.5 * count and count <= 2
        level = np.sqrt(np.mean(heard[: len(heard) // 160 * 160].reshape(-1, 160) ** 2, axis=1))
        assert np.sum(level > 0.1) == pytest.approx(80, abs=8)  # as much tone as before
        assert level.min() > 3e-4  # noise, and no zeros
    assert counts == {0, 1, 2}


def test_without_a_gap_nothing_is_put_in():
    samples = tone(0.5).astype(np.float32)
    heard = perturb(samples, Augmentation(pauses=3), np.random.default_rng(0))
    assert np.array_equal(heard, samples)


def test_a_room_sounds_on_and_moves_nothing():
    silence = np.zeros(RATE, np.float32)
    burst = 0.1 * np.random.default_rng(1).standard_normal(int(0.3 * RATE))
    samples = np.concatenate([silence, burst, silence]).astype(np.float32)
    wish = Augmentation(room_share=1.0, room_s=(0.4, 0.4))
    heard = perturb(samples, wish, np.random.default_rng(0))
    assert heard.shape == samples.shape and np.abs(heard[: RATE - 1]).max() < 1e-4
    assert np.mean(heard**2) == pytest.approx(np.mean(samples**2), rel=0.02)
    ended = RATE + int(0.3 * RATE)
    tail = [np.mean(heard[ended + at : ended + at + 1600] ** 2) for at in (0, 1600, 3200)]
    for early, late in zip(tail, tail[1:], strict=False):  # 60 dB in 0.4 s: 15 dB in 0.1 s
        assert 10 * np.log10(early / late) == pytest.approx(15.0, abs=2.0)
