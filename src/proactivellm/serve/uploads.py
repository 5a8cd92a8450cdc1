"""A recording that a client uploaded: looked at before libsndfile sees it, decoded as it is heard.

libsndfile reads dozens of formats, and vulnerabilities are known of the decoders of rare ones in
the release that soundfile brings (SECURITY.md). Strangers get to its common ones alone, and a small
file that unpacks to days of sound takes no memory.
"""

import asyncio
import struct
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from proactivellm.modality.speech.files import Recording
from proactivellm.serve.audio import FRAME_S
from proactivellm.serve.errors import RequestError

_FORMATS = "wav (as plain samples), flac, ogg, opus or mp3"
_MOST_CHANNELS = 8
_MOST_PARTS = 100  # before the samples
# Codes of a WAV file: PCM, floats, A-law, µ-law. The others are codecs, such as ADPCM.
_PLAIN, _EXTENSIBLE = (1, 3, 6, 7), 0xFFFE
_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "ALAW", "ULAW", "VORBIS", "OPUS", "MPEG_LAYER_III")


class Upload:
    """A recording in a temporary file.

    Args:
        content: of the file.
        name: that the client gave it, for messages.
        most_s: seconds that it may last.

    Attributes:
        rate: samples per second.

    Raises:
        RequestError: it is in none of the formats above, is damaged at its beginning, or too long.
    """

    def __init__(self, content: bytes, name: str, most_s: float) -> None:
        self._name, self._most_s = name[:80], most_s
        if not _is_common(content):
            raise self._refused(f"{self._name}: this is no {_FORMATS}")
        self._copy = tempfile.NamedTemporaryFile(suffix=".audio")
        Path(self._copy.name).write_bytes(content)
        try:
            self._recording = _Quiet(self._copy.name)
        except ValueError as error:
            self._copy.close()
            raise self._refused(str(error).replace(self._copy.name, self._name)) from None
        self.rate = self._recording.rate
        self._blocks = self._recording.blocks(seconds=FRAME_S)
        self._in_use = threading.Lock()  # a file that is read is not to be closed beside that
        try:
            self._check()
        except RequestError:
            self.close()
            raise

    async def blocks(self) -> AsyncIterator[np.ndarray]:
        """Float32 [n] mono, `FRAME_S` each; RequestError if it lasts longer than it said."""
        heard = 0
        while (block := await self._decoded()) is not None:
            heard += len(block)
            self._limit(heard / self.rate)
            yield block

    def close(self) -> None:
        """Gives the file back; idempotent."""
        with self._in_use:
            self._recording.close()
            self._copy.close()

    async def _decoded(self) -> np.ndarray | None:
        try:
            return await asyncio.to_thread(self._next)
        except ValueError as error:
            raise self._refused(str(error).replace(self._copy.name, self._name)) from None

    def _next(self) -> np.ndarray | None:
        with self._in_use:
            return None if self._copy.closed else next(self._blocks, None)

    def _check(self) -> None:
        recording = self._recording
        if not recording.subtype.startswith(_SUBTYPES):
            raise self._refused(f"{self._name}: this is no {_FORMATS}")
        if recording.channels > _MOST_CHANNELS:
            raise self._refused(
                f"{self._name}: {recording.channels} channels, and {_MOST_CHANNELS} may be"
            )
        self._limit(recording.duration_s or 0.0)

    def _limit(self, duration_s: float) -> None:
        if duration_s > self._most_s:
            raise RequestError(
                f"a recording may last {self._most_s:g} s, this one has {duration_s:.0f} s",
                code="input_too_long",
                param="file",
            )

    def _refused(self, message: str) -> RequestError:
        return RequestError(message, code="invalid_audio", param="file")


class _Quiet(Recording):
    """Of a file that is cut, what is there is heard."""

    def _warn(self, message: str) -> None:
        pass


def _is_common(content: bytes) -> bool:
    """Whether libsndfile will take it for one of the common formats, by what it begins with."""
    place = 0
    for _ in range(_MOST_PARTS):
        if content[place : place + 3] != b"ID3":  # a tag, which it looks behind
            break
        size = 0
        for part in content[place + 6 : place + 10]:
            size = size << 7 | part & 0x7F
        place += 10 + size
    head = content[place : place + 12]
    if head[:4] in (b"fLaC", b"OggS") or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        return True
    return head[:4] == b"RIFF" and head[8:] == b"WAVE" and _is_plain(content, place + 12)


def _is_plain(content: bytes, place: int) -> bool:
    """Whether the samples of a WAV file are plain numbers, by its first format chunk."""
    for _ in range(_MOST_PARTS):
        if place + 8 > len(content):
            break
        name, size = struct.unpack_from("<4sI", content, place)
        place += 8
        if name == b"fmt " and place + 16 <= len(content):
            (code,) = struct.unpack_from("<H", content, place)
            if code == _EXTENSIBLE and size >= 26 and place + 26 <= len(content):
                (code,) = struct.unpack_from("<H", content, place + 24)
            return code in _PLAIN
        place += size + size % 2
    return False
