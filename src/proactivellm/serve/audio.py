"""Audio as clients send it: base64 of PCM16 or G.711, in pieces of any length."""

import base64
import binascii
import functools
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from proactivellm.modality.speech.extra import needed
from proactivellm.modality.speech.resample import check_rate
from proactivellm.serve.errors import RequestError, not_supported

RATE = 24_000  # of OpenAI's protocols, in samples per second
_PCM, _G711_RATE = "audio/pcm", 8000
_G711 = {"audio/pcmu": "ULAW", "audio/pcma": "ALAW"}  # as soundfile names them
FRAME_S = 0.2  # longer pieces are heard in several steps, so that nobody waits for one of them


class Format(NamedTuple):
    """How samples come: mono; PCM16 little-endian, or one of the two laws of G.711."""

    kind: str = _PCM
    rate: int = RATE

    def decode(self, audio: str) -> np.ndarray:
        """Samples, float32 [n] in [-1, 1), of base64; RequestError if it is not."""
        try:
            raw = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(
                "the audio is no valid base64", code="invalid_audio", param="audio"
            ) from None
        if self.kind != _PCM:
            return _expanded(_G711[self.kind])[np.frombuffer(raw, np.uint8)]
        if len(raw) % 2:
            raise RequestError(
                f"PCM16 has two bytes a sample, and these are {len(raw)}",
                code="invalid_audio",
                param="audio",
            )
        return np.frombuffer(raw, dtype="<i2").astype(np.float32) / 32768

    def as_dict(self) -> dict[str, Any]:
        """The object of OpenAI's protocol."""
        return {"type": self.kind, "rate": self.rate} if self.kind == _PCM else {"type": self.kind}


def read_format(audio_format: dict[str, Any], param: str) -> Format:
    """The format of such an object; RequestError if it cannot be heard."""
    kind = audio_format.get("type", _PCM)
    rate = audio_format.get("rate", RATE if kind == _PCM else _G711_RATE)
    if kind != _PCM and (not isinstance(kind, str) or kind not in _G711):
        raise not_supported(f"audio of the format {str(kind)[:40]!r}", f"{param}.type")
    if not isinstance(rate, int) or isinstance(rate, bool):
        raise RequestError("a rate is an integer", code="invalid_event", param=f"{param}.rate")
    try:
        if kind != _PCM and rate != _G711_RATE:
            raise ValueError(f"G.711 at another rate than {_G711_RATE} Hz")
        check_rate(rate)
    except ValueError as error:
        raise not_supported(str(error), f"{param}.rate") from None
    return Format(kind, rate)


@functools.cache
def _expanded(law: str) -> np.ndarray:
    """The sample of each of the 256 codes of G.711."""
    codes, how = io.BytesIO(bytes(range(256))), {"format": "RAW", "subtype": law, "channels": 1}
    return needed("soundfile").read(codes, samplerate=_G711_RATE, dtype="float32", **how)[0]


def frames(samples: np.ndarray, rate: int) -> Iterator[np.ndarray]:
    """The samples in pieces that are not too long for one step."""
    size = round(FRAME_S * rate)
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
