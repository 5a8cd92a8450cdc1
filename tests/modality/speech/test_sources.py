"""Live sources: samples come out as they come in, and the errors of a missing microphone help."""

import io
import os
import sys
import types

import numpy as np
import pytest
import soundfile
from tests.modality.speech.signals import RATE, noise, voice

from proactivellm.modality.speech import sources
from proactivellm.modality.speech.files import Recording
from proactivellm.modality.speech.sources import microphone_blocks, paced, pcm_blocks, piped_blocks


def to_s16(samples):
    return np.round(samples * 32767).astype("<i2").tobytes()


def test_s16_and_f32_give_the_samples():
    samples = voice(0.35)
    for name, content, error in (("s16le", to_s16(samples), 1e-4), ("f32le", samples.tobytes(), 0)):
        blocks = list(pcm_blocks(io.BytesIO(content), RATE, 1, name))
        assert [len(block) for block in blocks] == [1600, 1600, 1600, 800]
        assert np.abs(np.concatenate(blocks) - samples).max() <= error
        assert blocks[0].dtype == np.float32


def test_full_scale_and_bad_values():
    least = np.array([-32768, 32767], "<i2").tobytes()
    assert next(pcm_blocks(io.BytesIO(least))).tolist() == [-1.0, 32767 / 32768]
    wild = np.array([np.nan, np.inf, 7.0], "<f4").tobytes()
    assert next(pcm_blocks(io.BytesIO(wild), sample_format="f32le")).tolist() == [0, 0, 1]


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("length", ["known", "unknown", "missing"])
def test_piped_wav_is_read_by_its_header(tmp_path, subtype, length):
    """As a file is, whatever the flags say; ffmpeg cannot know the length in a pipe."""
    path = tmp_path / "a.wav"
    stereo = np.stack([voice(0.2, 8000), noise(0.2, -20, 8000)], axis=1)
    soundfile.write(path, stereo, 8000, subtype=subtype)
    with Recording(path) as recording:
        expected = np.concatenate(list(recording.blocks()))
    content = path.read_bytes()
    place = content.index(b"data") + 4
    if length != "known":
        content = content[:place] + bytes([255 * (length == "unknown")] * 4) + content[place + 4 :]
    with pytest.warns(UserWarning, match="standard input is WAV: read by its header .*8000 Hz"):
        rate, blocks = piped_blocks(io.BytesIO(content + b"LIST" * (length == "known")))
        read = np.concatenate(list(blocks))
    assert rate == 8000
    assert np.abs(read[: len(expected)] - expected).max() < 1e-6
    assert length != "known" or len(read) == len(expected)


def test_other_recordings_in_a_pipe_are_refused(tmp_path):
    for name in ("a.flac", "a.ogg", "a.aiff"):
        soundfile.write(tmp_path / name, voice(0.2), RATE)
        with pytest.raises(ValueError, match=r"standard input is a recording .*ffmpeg -i"):
            piped_blocks(io.BytesIO((tmp_path / name).read_bytes()))
    soundfile.write(tmp_path / "a.wav", voice(0.2), RATE, subtype="GSM610")
    with pytest.raises(ValueError, match="WAV of codec 0x31 with 0 bits in a pipe: give the file"):
        piped_blocks(io.BytesIO((tmp_path / "a.wav").read_bytes()))
    with pytest.raises(ValueError, match="the WAV header is cut"):
        piped_blocks(io.BytesIO((tmp_path / "a.wav").read_bytes()[:14]))


def test_floats_at_the_scale_of_integers_are_refused_in_a_pipe():
    content = (32768 * voice(0.2)).astype("<f4").tobytes()
    with pytest.raises(ValueError, match="f32le samples of up to .*are they integers"):
        list(pcm_blocks(io.BytesIO(content), sample_format="f32le"))


def test_raw_samples_in_a_pipe_pass_unchanged():
    for num_samples in (0, 3, 2000):
        content = to_s16(voice(1))[: 2 * num_samples]
        rate, blocks = piped_blocks(io.BytesIO(content), 8000)
        expected = np.frombuffer(content, "<i2") / 32768
        assert rate == 8000 and np.array_equal(np.concatenate([np.zeros(0), *blocks]), expected)


def test_channels_are_averaged():
    left, right = voice(0.2), noise(0.2, -20)
    content = np.stack([left, right], axis=1).tobytes()
    blocks = list(pcm_blocks(io.BytesIO(content), RATE, 2, "f32le"))
    assert np.abs(np.concatenate(blocks) - (left + right) / 2).max() < 1e-6


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_pipe_is_not_waited_for(buffering):
    reading, writing = os.pipe()
    content = to_s16(voice(0.1))
    with os.fdopen(reading, "rb", buffering) as stream:
        blocks = pcm_blocks(stream)
        os.write(writing, content[:101])  # would hang here if a full block was awaited
        assert len(next(blocks)) == 50
        os.write(writing, content[101:104])  # the odd byte belongs to the next sample
        second = next(blocks)
        os.write(writing, content[104:105])
        os.close(writing)
        assert list(blocks) == []  # half a sample at the end is dropped
    expected = np.frombuffer(content[100:104], "<i2") / 32768
    assert np.allclose(second, expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sample_format": "mp3"}, "unknown sample format 'mp3': choose from s16le, f32le"),
        ({"rate": 0}, "rate=0"),
        ({"channels": 0}, "channels=0"),
    ],
)
def test_wrong_formats_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        next(pcm_blocks(io.BytesIO(b"1234"), **wrong))


def test_paced_blocks_come_when_they_were_spoken(monkeypatch):
    now = 100.0
    clock = types.SimpleNamespace(monotonic=lambda: now, sleep=lambda seconds: spend(seconds))

    def spend(seconds):
        nonlocal now
        now += seconds

    monkeypatch.setattr(sources, "time", clock)
    times = []
    for block in paced([np.zeros(n, np.float32) for n in (800, 1600, 0, 800, 800)], 8_000):
        times.append((len(block), round(now - 100, 6)))
        spend(0.25 if len(times) == 3 else 0.01)  # late once: the next comes at once
    assert times == [(800, 0.1), (1600, 0.3), (0, 0.31), (800, 0.56), (800, 0.57)]


class FakeDevice:
    """Stands for sounddevice, where there is no sound card: says three blocks, then stops."""

    class PortAudioError(Exception):
        pass

    def __init__(self, num_blocks=3, refusal=None):
        self.num_blocks, self.refusal, self.closed = num_blocks, refusal, False

    def RawInputStream(self, *, blocksize, channels, callback, **options):
        if self.refusal:
            raise self.PortAudioError(self.refusal)
        self.blocksize, self.channels, self.callback = blocksize, channels, callback
        return self

    active = False

    def __enter__(self):
        status = types.SimpleNamespace(input_overflow=False)
        for number in range(self.num_blocks):
            block = np.full((self.blocksize, self.channels), number / 1000, np.float32)
            self.callback(block.data, self.blocksize, None, status)
        return self

    def __exit__(self, *error):
        self.closed = True


def test_a_microphone_gives_what_it_hears(monkeypatch):
    device = FakeDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    blocks = list(microphone_blocks(44_100, channels=2))
    assert [(len(block), round(float(block[0]), 4)) for block in blocks] == [
        (4410, 0.0),
        (4410, 0.001),
        (4410, 0.002),
    ]
    assert device.closed


def test_a_microphone_is_closed_by_whoever_stops_listening(monkeypatch):
    device = FakeDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    blocks = microphone_blocks()
    next(blocks)
    blocks.close()
    assert device.closed


def test_a_slow_reader_loses_audio_with_a_warning(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeDevice(num_blocks=305))
    with pytest.warns(UserWarning, match="the reader is too slow"):
        blocks = list(microphone_blocks())
    assert len(blocks) == 300


def test_no_microphone_no_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeDevice(refusal="Invalid sample rate"))
    with pytest.raises(ValueError, match=r"no microphone .*Invalid sample rate.*lists the devices"):
        next(microphone_blocks())
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ValueError, match=r"pip install 'proactivellm\[microphone\]'"):
        next(microphone_blocks())


def test_no_portaudio_no_traceback(monkeypatch):
    def missing(name, extra):
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(sources, "needed", missing)
    with pytest.raises(ValueError, match="PortAudio library not found.*libportaudio2"):
        next(microphone_blocks())
