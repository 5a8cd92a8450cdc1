"""Audio files: formats, channels, members of zips, damage, and bounded memory."""

import sys
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import soundfile
from tests.modality.speech.signals import RATE, noise, voice

from proactivellm.modality.speech import files
from proactivellm.modality.speech.extensions import is_audio
from proactivellm.modality.speech.files import Recording, read_audio
from proactivellm.modality.speech.resample import to_16k

FORMATS = {
    "wav": {},
    "flac": {},
    "ogg": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {},
    "aiff": {},
}


def write(path, samples, rate=RATE, **options):
    options = {**FORMATS.get(path.suffix[1:], {}), **options}
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read(tmp_path, name):
    samples = voice(1)
    path = write(tmp_path / f"a.{name}", samples)
    with warnings.catch_warnings(), Recording(path) as recording:
        warnings.simplefilter("error")
        assert (recording.rate, recording.channels, recording.duration_s) == (RATE, 1, 1.0)
        blocks = list(recording.blocks())
    assert [len(block) for block in blocks] == [1600] * 10
    error = np.concatenate(blocks) - samples
    noise_to_signal = 1e-3 if name in ("wav", "flac", "aiff") else 0.2
    assert np.sqrt(np.mean(error**2)) < noise_to_signal * np.sqrt(np.mean(samples**2))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_format_is_read(tmp_path, subtype):
    samples = voice(0.5)
    path = write(tmp_path / "a.wav", samples, subtype=subtype)
    assert np.abs(read_audio(path) - samples).max() < 0.01


def test_channels_are_averaged(tmp_path):
    left, right = voice(0.5), noise(0.5, -20)
    path = write(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    with Recording(path) as recording:
        assert recording.channels == 2
    assert np.abs(read_audio(path) - (left + right) / 2).max() < 1e-6


def test_bad_samples_become_silence_and_loud_ones_are_clipped(tmp_path):
    samples = np.array([0.5, np.nan, np.inf, -np.inf, 3.0, -3.0], np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.warns(UserWarning, match=r"a\.wav: 3 samples are no numbers"):
        assert read_audio(path).tolist() == [0.5, 0, 0, 0, 1, -1]


@pytest.mark.parametrize(
    ("name", "subtype"), [("a.wav", "GSM610"), ("a.wav", "G721_32"), ("a.au", "G723_24")]
)
def test_codecs_that_cannot_be_sought_in_are_read(tmp_path, name, subtype):
    samples = voice(0.5, 8000)
    path = write(tmp_path / name, samples, 8000, subtype=subtype)
    with Recording(path) as recording:
        read = np.concatenate(list(recording.blocks(seconds=0.03)))
    assert len(samples) <= len(read) <= len(samples) + 640
    assert np.corrcoef(samples, read[: len(samples)])[0, 1] > 0.9


@pytest.mark.parametrize("in_zip", [False, True])
def test_a_length_that_was_never_filled_in(tmp_path, in_zip):
    path = write(tmp_path / "a.wav", voice(0.5))
    expected, content = read_audio(path), bytearray(path.read_bytes())
    content[4:8] = content[40:44] = bytes(4)
    path.write_bytes(content)
    name = path
    if in_zip:
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            archive.write(path, "a.wav")
        name = f"{tmp_path}/all.zip:a.wav"
    assert np.array_equal(read_audio(name), expected)
    path.write_bytes(content[:44] + b"LIST\4\0\0\0note")  # truly empty
    with pytest.raises(ValueError, match="there are no samples in it"):
        read_audio(path)


@pytest.mark.parametrize("bits", [16, 32])
def test_floats_at_the_scale_of_integers_are_scaled_with_a_note(tmp_path, bits):
    samples, scale = voice(0.5), 2.0 ** (bits - 1)
    path = write(tmp_path / "a.wav", samples * scale, subtype="FLOAT")
    with pytest.warns(UserWarning, match=f"taken for {bits}-bit integers and divided by"):
        assert np.abs(read_audio(path) - samples).max() < 1e-6
    samples[100] = 1e6  # a single fault is no scale: clipped
    path = write(tmp_path / "b.wav", samples, subtype="FLOAT")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_audio(path)
    assert read[100] == 1 and np.abs(np.delete(read - samples, 100)).max() == 0


@pytest.mark.parametrize(("suffix", "kind"), [("w64", "W64"), ("rf64", "RF64"), ("wav", "RF64")])
def test_wav_of_64_bit_lengths(tmp_path, suffix, kind):
    samples = voice(0.3)
    path = write(tmp_path / f"a.{suffix}", samples, format=kind, subtype="PCM_16")
    assert is_audio(path) and np.abs(read_audio(path) - samples).max() < 1e-4


def test_rates_that_are_none_of_speech_are_refused_at_once(tmp_path):
    path = write(tmp_path / "a.wav", np.zeros(99, np.float32), 500)
    with pytest.raises(ValueError, match=r"a\.wav: a sample rate of 500 Hz: speech has 1,000 to"):
        Recording(path)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_the_whole_equals_its_blocks(tmp_path, rate):
    path = write(tmp_path / "a.wav", voice(1, rate), rate)
    with Recording(path) as recording:
        blocks = np.concatenate(list(to_16k(recording.blocks(seconds=0.033), recording.rate)))
    assert np.array_equal(read_audio(path), blocks)
    assert len(blocks) == RATE


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_of_zips(tmp_path, how):
    path = write(tmp_path / "a.flac", voice(0.5))
    with zipfile.ZipFile(tmp_path / "all.zip", "w", how) as archive:
        archive.write(path, "folder/a.flac")
    assert np.array_equal(read_audio(f"{tmp_path}/all.zip:folder/a.flac"), read_audio(path))
    with pytest.raises(ValueError, match=r"all\.zip:b\.flac: no such member: .*lists the members"):
        read_audio(f"{tmp_path}/all.zip:b.flac")
    with pytest.raises(ValueError, match=r"there is no archive"):
        read_audio(f"{tmp_path}/none.zip:b.flac")


def test_a_member_that_unpacks_to_more_than_memory(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(100_001))
    monkeypatch.setattr(files, "_LARGEST_MEMBER", 100_000)
    with pytest.raises(ValueError, match="unpacked, it has 100001 bytes.*unpack it to a file"):
        read_audio(f"{tmp_path}/all.zip:a.wav")


def test_damaged_zips(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"bad\.zip:a\.wav: cannot be read"):
        read_audio(f"{tmp_path}/bad.zip:a.wav")


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_file_yields_its_beginning_and_warns(tmp_path, name):
    path = write(tmp_path / f"a.{name}", voice(4))
    whole = read_audio(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=rf"a\.{name}: the file is cut: \d\.\d\d s were read"):
        samples = read_audio(path)
    assert 0.9 * RATE < len(samples) < 3 * RATE
    assert np.abs(samples - whole[: len(samples)])[: -RATE // 10].max() < 0.02


def test_a_flac_gives_all_samples_before_the_damage(tmp_path):
    path = write(tmp_path / "a.flac", voice(4))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match="the file is cut"), Recording(path) as recording:
        lengths = [len(block) for block in recording.blocks()]
    assert sum(lengths) % 1600 != 0  # more than whole blocks


def test_a_header_of_unknown_length_is_no_damage(tmp_path):
    path = write(tmp_path / "a.wav", voice(0.5))
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4  # as written into a pipe
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_audio(path)) == RATE // 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.wav", b"no audio at all" * 100, "cannot be read as audio .*ffmpeg -i"),
        ("a.raw", b"\0" * 1000, "cannot be read as audio"),
        ("a.wav", b"", "the file is empty"),
        ("a.au", b"", "the file is empty"),
        ("b.wav", None, "there is no such file"),
        (".", None, "that is no file: check the path"),
    ],
)
def test_what_is_no_audio_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_audio(path)
    assert str(caught.value).startswith(str(path))


def test_a_file_without_samples_is_refused(tmp_path):
    path = write(tmp_path / "a.wav", np.zeros(0, np.float32))
    with pytest.raises(ValueError, match=r"a\.wav: there are no samples"):
        Recording(path)


def test_a_long_file_is_never_in_memory(tmp_path):
    path = write(tmp_path / "a.wav", np.zeros(120 * RATE, np.int16))
    with Recording(path) as recording:
        blocks = recording.blocks()
        next(blocks)
        tracemalloc.start()
        num_samples = sum(len(block) for block in blocks)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert num_samples == 120 * RATE - 1600
    assert most < 200_000  # the whole would be 7.7 MB


def test_audio_is_known_by_extension():
    names = ["a.wav", "A.FLAC", "x.zip:b.opus", "a.b.mp3", "a.m4a", "a.w64"]
    assert all(map(is_audio, names))
    assert not any(map(is_audio, ["a.txt", "wav", "a.zip", "a.wav.txt", "-"]))


def test_without_soundfile_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ValueError, match=r"soundfile.*pip install 'proactivellm\[speech\]'"):
        Recording(tmp_path / "a.wav")
