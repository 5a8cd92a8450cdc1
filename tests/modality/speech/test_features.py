"""Log-mel frames against transformers' WhisperFeatureExtractor, however the audio arrives."""

import numpy as np
import pytest
from tests.modality.speech.signals import noise, ragged, silence, voice
from transformers import WhisperFeatureExtractor

from proactivellm.modality.speech.features import DYNAMIC_RANGE, LogMelStream, floor, log_mel
from proactivellm.modality.speech.resample import RATE

SHAPES = {  # bands, hop, window
    "whisper": {"feature_size": 80, "hop_length": 160, "n_fft": 400},
    "whisper-large-v3": {"feature_size": 128, "hop_length": 160, "n_fft": 400},
    "small": {"feature_size": 64, "hop_length": 320, "n_fft": 512},
}
TOLERANCE = 2e-4  # frames are about 2 in size: the reference computes its spectrum in fp64
ROUNDING = 1e-5  # a matrix product of other shape rounds otherwise


@pytest.fixture(params=SHAPES, scope="module")
def extractor(request):
    return WhisperFeatureExtractor(**SHAPES[request.param])


@pytest.fixture(scope="module")
def fading():
    """Loud first: nothing that comes later changes the floor of an earlier frame."""
    samples = np.concatenate([noise(0.2, -6), voice(2.5), noise(0.777, -60), silence(0.3)])
    return samples.astype(np.float32)


def reference(samples, extractor):
    """The frames of the extractor on the same audio, padded by it to 30 s and cut again."""
    padded = extractor(samples, sampling_rate=RATE, return_tensors="np").input_features[0].T
    return padded[: -(-len(samples) // extractor.hop_length)]


def streamed(pushes, extractor):
    stream = LogMelStream(extractor)
    return np.concatenate([*(stream.push(push) for push in pushes), stream.finish()])


def test_frames_are_those_of_the_extractor(extractor, fading):
    frames = log_mel(fading, extractor)
    expected = reference(fading, extractor)
    assert frames.shape == expected.shape and frames.dtype == np.float32
    assert np.abs(frames - expected).max() < TOLERANCE
    assert expected.std() > 0.3, "the signal should use the range of the features"


@pytest.mark.parametrize("chunk_ms", [80, 320, 640, 1000, None])
def test_pieces_do_not_change_them(extractor, fading, chunk_ms):
    size = chunk_ms and chunk_ms * RATE // 1000
    pushes = np.split(fading, range(size, len(fading), size)) if size else ragged(fading)
    frames, expected = streamed(pushes, extractor), log_mel(fading, extractor)
    assert frames.shape == expected.shape and np.abs(frames - expected).max() < ROUNDING


def test_the_floor_of_a_louder_end_is_all_that_can_differ(extractor):
    """The extractor's floor lies 8 decades below the loudest band, known at the end only."""
    samples = np.concatenate([silence(0.5), noise(0.5, -80), voice(1.0), noise(0.5, -3)])
    frames, expected = log_mel(samples, extractor), reference(samples, extractor)
    assert np.abs(floor(frames) - expected).max() < TOLERANCE
    differs = np.abs(frames - expected) > TOLERANCE
    assert differs[: int(0.4 * RATE / extractor.hop_length)].all(), "digital silence at the start"
    low = expected.max() - DYNAMIC_RANGE / 4
    assert np.abs(expected[differs] - low).max() < TOLERANCE, "elsewhere than at the floor"
    assert (frames[differs] < expected[differs]).all()


@pytest.mark.parametrize("num_samples", [1, 100, 200, 201, 256, 257, 400, 513])
def test_recordings_shorter_than_a_window(extractor, num_samples):
    samples = noise(1.0, -20)[:num_samples]
    frames, expected = log_mel(samples, extractor), reference(samples, extractor)
    assert len(frames) == -(-num_samples // extractor.hop_length)
    assert np.abs(floor(frames) - expected).max() < TOLERANCE


def test_an_empty_recording_has_no_frames(extractor):
    frames = log_mel(np.zeros(0, np.float32), extractor)
    assert frames.shape == (0, extractor.feature_size)
    assert floor(frames).shape == frames.shape


def test_a_frame_comes_as_soon_as_its_window_is_there(extractor):
    stream, samples = LogMelStream(extractor), noise(0.2, -20)
    due = 3 * extractor.hop_length + stream.ahead  # samples that frame 3 needs
    assert len(stream.push(samples[: due - 1])) == 3
    assert len(stream.push(samples[due - 1 : due])) == 1


def test_a_clone_goes_on_by_itself(extractor, fading):
    stream = LogMelStream(extractor)
    head, tail = np.split(fading, [20_011])
    before = stream.push(head)
    twin = stream.clone()
    stream.push(noise(1.0, 0))
    after = np.concatenate([twin.push(tail), twin.finish()])
    frames = np.concatenate([before, after])
    assert np.abs(frames - log_mel(fading, extractor)).max() < ROUNDING


def test_what_is_kept_does_not_grow(extractor):
    stream = LogMelStream(extractor)
    kept = []
    for _ in range(50):
        stream.push(noise(0.333, -20))
        kept.append(sum(np.size(value) for value in vars(stream).values()))
    assert max(kept[1:]) <= kept[0] + extractor.hop_length
