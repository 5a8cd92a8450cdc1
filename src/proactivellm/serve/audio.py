"""Audio as clients send it: base64 of PCM16, in pieces of any length."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import numpy as np

from proactivellm.modality.speech.resample import check_rate
from proactivellm.serve.errors import RequestError, not_supported

RATE = 24_000  # of OpenAI's protocols, in samples per second
FRAME_S = 0.2  # longer pieces are heard in several steps, so that nobody waits for one of them


def read_format(audio_format: dict[str, Any] | None, param: str) -> int:
    """The sample rate of a format `{"type": "audio/pcm", "rate": N}`; RequestError for others."""
    if audio_format is None:
        return RATE
    kind, rate = audio_format.get("type", "audio/pcm"), audio_format.get("rate", RATE)
    if kind != "audio/pcm":
        raise not_supported(f"audio of the format {str(kind)[:40]!r}", f"{param}.type")
    if not isinstance(rate, int) or isinstance(rate, bool):
        raise RequestError("a rate is an integer", code="invalid_event", param=f"{param}.rate")
    try:
        check_rate(rate)
    except ValueError as error:
        raise not_supported(str(error), f"{param}.rate") from None
    return rate


def decode(audio: str) -> np.ndarray:
    """Samples, float32 [n] in [-1, 1), of base64 of PCM16, mono, little-endian.

    RequestError if it is not.
    """
    try:
        raw = base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            "the audio is no valid base64", code="invalid_audio", param="audio"
        ) from None
    if len(raw) % 2:
        raise RequestError(
            f"PCM16 has two bytes a sample, and these are {len(raw)}",
            code="invalid_audio",
            param="audio",
        )
    return np.frombuffer(raw, dtype="<i2").astype(np.float32) / 32768


def frames(samples: np.ndarray, rate: int) -> Iterator[np.ndarray]:
    """The samples in pieces that are not too long for one step."""
    size = round(FRAME_S * rate)
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
