"""Samples in, units out: when they come, when they were spoken, and what they hold."""

import numpy as np
import pytest
import torch
from tests.modality.speech.fronts import gap, new_listener, noise, pieces

from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.resample import RATE
from proactivellm.modality.speech.speech_stream import SpeechStream

TOLERANCE = 1e-4
CHUNKS_MS = (80, 320, 640, 1000, None)  # None = ragged
SETTINGS = [
    {},
    {"block": 1},
    {"lookahead": 3},
    {"block": 1, "lookahead": 2},
    {"block": 4, "lookahead": 1},
    {"unit": 4, "stack": 1},
    {"unit": 6, "stack": 2, "lookahead": 4},  # the first unit is an embedding short
    {"unit": 4, "stack": 2, "lookahead": 6},  # looks ahead for longer than a unit
]


def stream_all(stream, pushes):
    return [unit for push in pushes for unit in stream.push(push)] + stream.finish()


def embeddings(units):
    return torch.cat([unit.features for unit in units if unit.features is not None])


def times(units):
    return [(unit.start_s, unit.end_s, unit.final) for unit in units]


def whole(front_end, samples):
    """Embeddings of one forward over a recording, and how many are in each unit."""
    mel_TF = log_mel(samples, front_end.extractor)
    with torch.inference_mode():
        embedded_1EH = front_end(torch.from_numpy(mel_TF)[None], torch.tensor([len(mel_TF)]))
    count = front_end.num_embeddings(len(mel_TF))
    assert count == embedded_1EH.shape[1]
    return embedded_1EH[0], front_end.unit_sizes(len(mel_TF))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("hop", [160, 320])
def test_units_are_those_of_one_forward_however_the_audio_arrives(hop, settings):
    front_end = new_listener(hop, positions=320, **settings)
    samples = noise(2 * RATE + 137)
    expected, sizes = whole(front_end, samples)
    first = None
    for chunk_ms in CHUNKS_MS:
        pushes = pieces(samples, chunk_ms and chunk_ms * RATE // 1000)
        units = stream_all(SpeechStream(front_end), pushes)
        assert [len(unit.features) for unit in units] == sizes
        assert gap(embeddings(units), expected) < TOLERANCE
        first = first or times(units)
        assert times(units) == first, "times depend on how the audio arrives"


@pytest.mark.parametrize("settings", SETTINGS[:6], ids=str)
@pytest.mark.parametrize("hop", [160, 320])
def test_unit_k_comes_with_push_k(hop, settings):
    front_end = new_listener(hop, positions=320, **settings)
    stream, unit_s = SpeechStream(front_end), front_end.unit_s
    samples = noise(RATE * 2)
    for k, push in enumerate(pieces(samples, round(unit_s * RATE))[:-1]):
        (unit,) = stream.push(push)
        assert unit.start_s == pytest.approx(k * unit_s)
        assert unit.end_s == pytest.approx((k + 1) * unit_s)
        assert not unit.final


def test_a_unit_comes_with_its_last_sample_and_not_before():
    stream = SpeechStream(new_listener(320))
    size = round(stream.front_end.unit_s * RATE)
    samples = noise(3 * size)
    assert not stream.push(samples[: size - 1])
    assert len(stream.push(samples[size - 1 : 2 * size])) == 2


def test_looking_ahead_for_longer_than_a_unit_leaves_the_first_push_without_one():
    stream = SpeechStream(new_listener(320, unit=4, stack=2, lookahead=6))
    size = round(stream.front_end.unit_s * RATE)
    counts = [len(stream.push(push)) for push in pieces(noise(5 * size), size)]
    assert counts == [0, 1, 1, 1, 1]
    assert stream.finish()[-1].end_s == pytest.approx(5 * size / RATE)


def test_blocks_longer_than_units_make_units_come_together_when_they_can():
    stream = SpeechStream(new_listener(320, unit=4, stack=2, block=8))
    size = round(stream.front_end.unit_s * RATE)
    pushes = [stream.push(push) for push in pieces(noise(4 * size), size)]
    assert [len(units) for units in pushes] == [0, 2, 0, 2]
    assert times(pushes[1]) == [(0.0, 0.32, False), (0.16, 0.32, False)]


@pytest.mark.parametrize("num_samples", [1, 100, 300, 639, 640, 5119, 5120, 5121, 10240, 11111])
def test_the_last_unit_is_final_and_ends_with_the_audio(num_samples):
    front_end, samples = new_listener(320), noise(num_samples)
    units = stream_all(SpeechStream(front_end), [samples])
    expected, sizes = whole(front_end, samples)
    assert [unit.final for unit in units] == [False] * (len(units) - 1) + [True]
    assert units[-1].end_s == pytest.approx(num_samples / RATE)
    assert [len(unit.features) for unit in units] == sizes
    assert gap(embeddings(units), expected) < TOLERANCE
    starts = [unit.start_s for unit in units]
    assert starts[1:] == [unit.end_s for unit in units[:-1]]


def test_nothing_to_hear_is_a_bare_end():
    (end,) = SpeechStream(new_listener(320)).finish()
    assert end.is_end and end.end_s == 0.0


class TestAudioThatWasLeftOut:
    """Pieces say when they were spoken; units are cut where all of them are joined."""

    def test_units_have_the_times_of_their_first_and_last_samples(self):
        front_end, samples = new_listener(320), noise(5 * 5120)
        stream = SpeechStream(front_end)
        units = stream.push(samples[:2560], 10.0)  # to 10.16
        units += stream.push(samples[2560:12800], 11.0)  # to 11.64
        units += stream.push(samples[12800:], 20.0)  # to 20.8
        units += stream.finish()
        assert [(u.start_s, u.end_s) for u in units] == [
            pytest.approx(pair)
            for pair in ((10.0, 11.16), (11.16, 11.48), (11.48, 20.16), (20.16, 20.48))
        ] + [pytest.approx((20.48, 20.8)), pytest.approx((20.8, 20.8))]
        assert gap(embeddings(units), whole(front_end, samples)[0]) < TOLERANCE

    def test_a_gap_between_units(self):
        stream = SpeechStream(new_listener(320))
        (first,) = stream.push(noise(5120), 1.0)
        (second,) = stream.push(noise(5120), 5.0)
        assert (first.start_s, first.end_s) == pytest.approx((1.0, 1.32))
        assert (second.start_s, second.end_s) == pytest.approx((5.0, 5.32))

    def test_pieces_that_follow_each_other_leave_nothing_behind(self):
        stream = SpeechStream(new_listener(320))
        for k in range(200):
            stream.push(noise(512), k * 512 / RATE + (k // 20))  # a gap after twenty
            stream.push(noise(0), 1e3)  # nothing was spoken
        assert len(stream._pieces) <= 2

    def test_the_past_is_refused(self):
        stream = SpeechStream(new_listener(320))
        stream.push(noise(16000), 3.0)
        with pytest.raises(ValueError, match=r"start_s=3.5 lies before 4.0"):
            stream.push(noise(100), 3.5)


def test_a_clone_goes_on_by_itself():
    front_end, samples = new_listener(320, lookahead=2), noise(40_000)
    stream = SpeechStream(front_end)
    before = stream.push(samples[:17_777], 2.0)
    twin = stream.clone()
    stream.push(noise(20_000, seed=1), 50.0)
    units = before + twin.push(samples[17_777:]) + twin.finish()
    assert gap(embeddings(units), whole(front_end, samples)[0]) < TOLERANCE
    assert units[-1].end_s == pytest.approx(2.0 + 2.5)


def test_a_recording_longer_than_the_positions_goes_on():
    stream = SpeechStream(new_listener(320, positions=40))  # of 1.6 s
    units = stream_all(stream, pieces(noise(RATE * 16), 5120))
    assert len(units) == 51 and units[-1].end_s == pytest.approx(16.0)
    features = embeddings(units)
    assert torch.isfinite(features).all() and features.std(0).min() > 0


def test_features_are_of_the_width_of_the_lm_and_need_no_gradient():
    (unit,) = SpeechStream(new_listener(320, lm_width=20)).push(np.zeros(5120, np.float32))
    assert unit.features.shape == (2, 20) and not unit.features.requires_grad
