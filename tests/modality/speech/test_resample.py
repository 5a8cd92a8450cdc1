"""The streaming resampler: chunking changes nothing, and its delay is what its docstring says."""

import sys

import numpy as np
import pytest
import soxr
from tests.modality.speech.signals import noise, ragged

from proactivellm.modality.speech.resample import RATE, Resampler, to_16k

RATES = [8_000, 11_025, 22_050, 44_100, 48_000]


@pytest.mark.parametrize("rate", RATES)
def test_chunking_changes_nothing(rate):
    samples = noise(2, -12, rate)
    whole = np.concatenate(list(to_16k([samples], rate)))
    pieces = np.concatenate(list(to_16k(ragged(samples), rate)))
    assert len(whole) == len(pieces) == 2 * RATE
    assert np.abs(whole - pieces).max() <= 1e-6
    assert np.abs(whole - np.clip(soxr.resample(samples, rate, RATE), -1, 1)).max() <= 1e-5
    assert whole.dtype == np.float32


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_keeps_its_time_and_level(rate):
    t = np.arange(rate) / rate
    tone = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    resampled = np.concatenate(list(to_16k(ragged(tone), rate)))
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    inside = slice(RATE // 10, -RATE // 10)  # at the edges the filter sees silence
    assert np.abs(resampled - expected)[inside].max() < 1e-3


@pytest.mark.parametrize(("rate", "most_ms"), list(zip(RATES, [115, 84, 41, 41, 37], strict=True)))
def test_the_delay_is_bounded(rate, most_ms):
    resampler = Resampler(rate)
    num_pushed = num_returned = 0
    for block in np.split(noise(2, -12, rate), 200 if rate % 100 == 0 else 50):
        num_pushed += len(block)
        num_returned += len(resampler.push(block))
        behind_s = num_pushed / rate - num_returned / RATE
        assert 0 <= behind_s <= most_ms / 1000 + len(block) / rate


def test_16_khz_passes_through_untouched():
    samples = noise(0.1, -12)
    resampler = Resampler(RATE)
    assert np.array_equal(resampler.push(samples), samples)
    assert len(resampler.finish()) == 0


def test_overshoot_is_clipped():
    square = np.sign(np.sin(2 * np.pi * 200 * np.arange(8_000) / 8_000)).astype(np.float32)
    assert np.abs(soxr.resample(square, 8_000, RATE)).max() > 1.05
    assert np.abs(np.concatenate(list(to_16k([square], 8_000)))).max() == 1.0


def test_nothing_in_nothing_out():
    assert list(to_16k([], 8_000)) == []


@pytest.mark.parametrize("rate", [0, -8_000, 10, 10**9])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(ValueError, match=f"sample rate of {rate} Hz"):
        Resampler(rate)


def test_without_soxr_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(ValueError, match=r"soxr.*pip install 'proactivellm\[speech\]'"):
        Resampler(8_000)
