"""Quiet voices, voices off zero, and voices that go on: the gate hears them like any other."""

from pathlib import Path

import numpy as np
import pytest
from tests.modality.speech.signals import noise, silence, voice

import proactivellm
from proactivellm.modality.speech.files import read_audio
from proactivellm.modality.speech.gate import RATE, Gate, GateSettings
from proactivellm.modality.speech.level import FRAME, Conditioner, level_db

SAMPLE = Path(proactivellm.__file__).parent / "assets/speech-sample"
RECORDING = np.concatenate([silence(1), voice(1.5), silence(2), voice(1), silence(1.5)])


def pieces_of(samples, **settings):
    gate = Gate(GateSettings(**settings))
    return [*gate.push(samples), *gate.finish()]


def heard(pieces):
    return np.concatenate([piece.samples for piece in pieces])


def turns(pieces):
    return [(piece.start_s, len(piece.samples), piece.ends_turn) for piece in pieces]


@pytest.fixture(scope="module")
def running():
    """A quiet speaker who makes no pause: 20 s of digits without the silence around them."""
    parts = []
    for name in ("digits-1.flac", "digits-3.flac"):
        frames = read_audio(str(SAMPLE / name))
        frames = frames[: len(frames) // 320 * 320].reshape(-1, 320)
        levels = np.array([level_db(frame) for frame in frames])
        parts.append(frames[levels > levels.max() - 32].ravel())
    samples = np.concatenate(parts)
    return np.tile(samples, -(-20 * RATE // len(samples)))


@pytest.mark.parametrize("gain_db", [20, 0, -20])
def test_a_voice_that_goes_on_is_heard_to_its_end_at_any_level(running, gain_db):
    pieces = pieces_of(running * np.float32(10 ** (gain_db / 20)), longest_s=60)
    assert len(heard(pieces)) > 0.97 * len(running)
    assert sum(piece.ends_turn for piece in pieces) == 1


@pytest.mark.parametrize("gain_db", [-30, -40])
def test_a_quiet_voice_is_heard_like_a_loud_one(gain_db):
    loud = pieces_of(RECORDING)
    quiet = pieces_of(RECORDING * np.float32(10 ** (gain_db / 20)))
    assert turns(quiet) == turns(loud)
    frames = heard(quiet)[: len(heard(quiet)) // FRAME * FRAME].reshape(-1, FRAME)
    assert max(level_db(frame) for frame in frames) == pytest.approx(-28, abs=0.1)
    assert np.abs(heard(quiet)).max() < 1


def test_a_usual_voice_stays_as_it_is():
    for samples in (RECORDING, 0.2 * RECORDING):
        pieces = [piece for piece in pieces_of(samples) if len(piece.samples)]
        for piece in pieces:
            start = round(piece.start_s * RATE)
            assert np.array_equal(piece.samples, samples[start : start + len(piece.samples)])


@pytest.mark.parametrize("offset", [0.01, -0.2])
def test_an_offset_is_taken_away(offset):
    usual = pieces_of(RECORDING)
    off_zero = pieces_of(RECORDING + np.float32(offset))
    assert turns(off_zero) == turns(usual)
    assert np.abs(heard(off_zero) - heard(usual)).max() < 0.003


def test_within_a_turn_the_gain_only_falls():
    level = Conditioner()
    level.begin_turn(noise(0.3, -60))
    gains = []
    for dbfs in (-60, -50, -60, -20, -60):
        frame = noise(FRAME / RATE, dbfs)
        gains.append(level_db(level.condition(frame)) - level_db(frame))
    assert gains == pytest.approx([32, 22, 22, 0, 0], abs=0.5)


def test_silence_is_raised_no_more_than_50_db_for_the_detector():
    level = Conditioner()
    quiet = noise(FRAME / RATE, -90)
    assert level_db(level.hear(quiet)) - level_db(quiet) == pytest.approx(50, abs=0.1)
    assert not Conditioner().hear(np.zeros(FRAME, np.float32)).any()


def test_a_loud_sound_makes_nobody_deaf_for_long():
    level = Conditioner()
    level.hear(noise(FRAME / RATE, -3))
    for _ in range(round(6 * RATE / FRAME)):
        raised = level.hear(noise(FRAME / RATE, -40))
    assert level_db(raised) == pytest.approx(-23, abs=2)
