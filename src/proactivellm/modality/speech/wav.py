"""WAV headers where libsndfile does not help: in a pipe, and where the length is missing."""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

WAV_HEAD_BYTES = 12  # "RIFF", a length, "WAVE"
UNKNOWN_LENGTH = 0x7FFF0000  # from here on a length says that the program did not know it
_LARGEST_CHUNK = 1 << 24  # of what precedes the samples
_FORMATS = {  # (code, bits): name of the sample format
    **{(1, 8): "u8", (1, 16): "s16le", (1, 24): "s24le", (1, 32): "s32le"},
    **{(3, 32): "f32le", (3, 64): "f64le"},
}
_EXTENSIBLE = 0xFFFE
_REMEDY = "give the file, or pipe samples: ffmpeg -i INPUT -f s16le -ar 16000 -ac 1 - | ..."


@dataclass(frozen=True)
class WavHeader:
    """How the samples of a WAV stream are stored."""

    sample_format: str  # a name of `sources.PCM_FORMATS`
    rate: int  # in samples per second
    channels: int  # interleaved
    num_bytes: int | None  # of all samples; None: whatever comes until the end


def read_wav_header(read: Callable[[int], bytes]) -> WavHeader:
    """Reads the header of a WAV stream up to the first sample; the first WAV_HEAD_BYTES are read
    already.

    `read` returns so many bytes, fewer only at the end. ValueError if the header is cut, or the
    samples are stored in another way than as plain numbers.
    """
    stored: tuple[str, int, int] | None = None
    while True:
        chunk = read(8)
        if len(chunk) < 8:
            raise ValueError("the WAV header is cut: pipe the whole recording in")
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            break
        if size > _LARGEST_CHUNK:
            raise ValueError(f"the WAV header is broken (a chunk of {size} bytes): {_REMEDY}")
        content = read(size + size % 2)
        if name == b"fmt ":
            stored = _stored(content)
    if stored is None:
        raise ValueError(f"the WAV header does not say how samples are stored: {_REMEDY}")
    return WavHeader(*stored, num_bytes=size if 0 < size < UNKNOWN_LENGTH else None)


def _stored(content: bytes) -> tuple[str, int, int]:
    """Sample format, rate and channels of a format chunk."""
    if len(content) < 16:
        raise ValueError(f"the WAV header is broken (a format of {len(content)} bytes): {_REMEDY}")
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content)
    if code == _EXTENSIBLE and len(content) >= 26:
        (code,) = struct.unpack_from("<H", content, 24)
    if (code, bits) not in _FORMATS:
        raise ValueError(f"WAV of codec {code:#x} with {bits} bits in a pipe: {_REMEDY}")
    return _FORMATS[code, bits], rate, channels


def place_of_missing_length(file: BinaryIO) -> int | None:
    """Where (4 bytes) a WAV file says that it has no samples, although it has; None if it does
    not.
    """
    if not file.read(WAV_HEAD_BYTES).startswith(b"RIFF"):
        return None
    while len(chunk := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            place = file.tell() - 4
            return None if size or _are_chunks(file) else place
        file.seek(size + size % 2, os.SEEK_CUR)
    return None


def _are_chunks(file: BinaryIO) -> bool:
    """Whether all the rest is chunks, which have names and add up, and so no samples."""
    here, end = file.tell(), file.seek(0, os.SEEK_END)
    while here + 8 <= end:
        file.seek(here)
        name, size = struct.unpack("<4sI", file.read(8))
        if not name.isascii() or not name.decode().isprintable():
            return False
        here += 8 + size + size % 2
    return here in (end, end + 1)


class WithLength:
    """A file that reads as if its length of samples, at the offset `place`, were unknown."""

    def __init__(self, file: BinaryIO, place: int) -> None:
        self._file, self._place = file, place

    def read(self, size: int = -1) -> bytes:
        """Reads at most `size` bytes, all if negative."""
        start = self._file.tell()
        content = bytearray(self._file.read(size))
        for place in range(max(start, self._place), min(start + len(content), self._place + 4)):
            content[place - start] = 0xFF
        return bytes(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves, as `io` has it."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where it is."""
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
