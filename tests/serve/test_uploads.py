"""What libsndfile is given of the files that strangers send, and what they cost."""

import asyncio
import io
import tracemalloc

import numpy as np
import pytest
import soundfile

from proactivellm.serve.errors import RequestError
from proactivellm.serve.uploads import Upload

RATE = 8000
TAG = b"ID3\x04\x00\x00\x00\x00\x00\x05 tag "


def file_of(format: str, subtype: str, seconds: float = 1.0, channels: int = 1) -> bytes:
    content = io.BytesIO()
    rate = 48_000 if subtype == "OPUS" else RATE
    samples_NC = np.full((round(seconds * rate), channels), 0.25, np.float32)
    soundfile.write(content, samples_NC, rate, format=format, subtype=subtype)
    return content.getvalue()


def heard_s(upload: Upload) -> float:
    async def hear() -> int:
        return sum([len(block) async for block in upload.blocks()])

    try:
        return asyncio.run(hear()) / upload.rate
    finally:
        upload.close()


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        *(("WAV", kind) for kind in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "ALAW")),
        *(("WAVEX", "PCM_16"), ("WAVEX", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")),
        *(("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
    ],
)
def test_common_formats_are_heard(format: str, subtype: str) -> None:
    assert heard_s(Upload(file_of(format, subtype), "x", 10)) == pytest.approx(1, abs=0.1)


def test_a_tag_before_the_sound_is_passed_over() -> None:
    assert heard_s(Upload(TAG + TAG + file_of("FLAC", "PCM_16"), "x", 10)) == 1


@pytest.mark.parametrize("before", [b"", TAG])
@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        *(("WAV", kind) for kind in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_16")),
        *(("AIFF", "PCM_16"), ("AIFF", "IMA_ADPCM"), ("AU", "PCM_16"), ("IRCAM", "PCM_16")),
        *(("MAT4", "PCM_16"), ("MAT5", "PCM_16"), ("W64", "IMA_ADPCM"), ("RF64", "PCM_16")),
        *(("NIST", "PCM_16"), ("VOC", "PCM_16"), ("CAF", "ALAC_16"), ("SVX", "PCM_16")),
    ],
)
def test_libsndfile_sees_no_other(
    format: str, subtype: str, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = before + file_of(format, subtype)
    monkeypatch.setattr(soundfile, "SoundFile", None)  # would be called
    with pytest.raises(RequestError, match="talk: this is no wav") as refused:
        Upload(content, "talk", 10)
    assert (refused.value.code, refused.value.param) == ("invalid_audio", "file")


def test_a_codec_that_hides_from_the_first_look_is_not_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proactivellm.serve.uploads._is_common", lambda content: True)
    with pytest.raises(RequestError, match="this is no wav"):
        Upload(file_of("WAV", "IMA_ADPCM"), "talk", 10)


@pytest.mark.parametrize(
    "content", [b"", b"ID3", b"\xff", b"RIFF", b"RIFF....WAVE" + b"LIST\0\0\0\0" * 10_000]
)
def test_what_is_cut_or_never_ends_is_refused(content: bytes) -> None:
    with pytest.raises(RequestError, match="this is no wav"):
        Upload(content, "talk", 10)


def test_a_small_file_of_much_sound_takes_no_memory() -> None:
    content = file_of("FLAC", "PCM_16", seconds=600)
    assert len(content) < 50_000

    async def hear(upload: Upload) -> None:
        async for _ in upload.blocks():
            return

    tracemalloc.start()
    upload = Upload(content, "talk", 3600)
    asyncio.run(hear(upload))
    upload.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000  # decoded, it has 19
    with pytest.raises(RequestError, match="may last 60 s, this one has 600 s") as refused:
        Upload(content, "talk", 60)
    assert refused.value.code == "input_too_long"
    with pytest.raises(RequestError, match="9 channels, and 8 may be"):
        Upload(file_of("WAV", "PCM_16", channels=9), "talk", 60)


def test_who_lasts_longer_than_it_said_is_heard_no_further() -> None:
    upload = Upload(file_of("WAV", "PCM_16"), "talk", 10)
    upload._most_s = 0.5  # as if its header had said less than that
    with pytest.raises(RequestError, match="may last 0.5 s, this one has 1 s"):
        heard_s(upload)


def test_floats_that_are_no_samples_are_refused() -> None:
    content = io.BytesIO()
    soundfile.write(content, np.full(RATE, 1e30, np.float32), RATE, format="WAV", subtype="FLOAT")
    with pytest.raises(RequestError, match="talk: floats of up to 1e[+]30") as refused:
        heard_s(Upload(content.getvalue(), "talk", 10))
    assert refused.value.code == "invalid_audio"


def test_closed_beside_a_reader_it_ends() -> None:
    upload = Upload(file_of("WAV", "PCM_16"), "talk", 10)

    async def hear() -> int:
        blocks = upload.blocks()
        await anext(blocks)
        upload.close()
        upload.close()
        return sum([len(block) async for block in blocks])

    assert asyncio.run(hear()) == 0
