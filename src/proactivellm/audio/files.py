"""Audio files, read block by block: whatever libsndfile decodes, also members of zip archives.

In: a path, or "archive.zip:member". Out: float32 mono blocks [n] in [-1, 1] at the file's own rate
(`open_audio`), or the whole at 16 kHz (`read_audio`).
"""

import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from proactivellm.audio.extra import needed
from proactivellm.audio.resample import to_16k

_READABLE = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf")
# Known as audio, so that the error is about audio; libsndfile does not decode them.
_UNREADABLE = (".aac", ".amr", ".m4a", ".mp4", ".webm", ".wma")
_REMEDY = "give wav, flac, ogg, opus or mp3, for example from: ffmpeg -i INPUT out.wav"
# What libsndfile notes about a header that promises more than the file holds. A length near 2**31
# or 2**32 is how a program says that it writes to a pipe and does not know.
_PROMISED = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be \d+\)")
_UNKNOWN_LENGTH = 0x7FFF0000
_OGG_WITHOUT_END = "Last page lacks an end-of-stream bit"
_UNKNOWN_FRAMES = 2**62
_LARGEST_MEMBER = 2**30  # bytes, read to memory whole; an archive can say that it unpacks to more


def is_audio(path: str | Path) -> bool:
    """Whether the extension of a path, or of a zip member, is one of audio.

    Args:
        path: a path or "archive.zip:member"; nothing is opened.
    """
    return Path(path).suffix.lower() in _READABLE + _UNREADABLE


def open_audio(path: str | Path) -> "Recording":
    """Opens a recording; use it in a `with` statement.

    Args:
        path: a file, or "archive.zip:member". A member is read to memory whole: members are meant
            to be small. A file is never in memory but for the block being read.

    Returns:
        The recording, at its start.

    Raises:
        ValueError: there is no such file or member, it is empty or no audio that can be read, or
            soundfile is not installed.
    """
    return Recording(path)


def read_audio(path: str | Path) -> np.ndarray:
    """Reads a whole recording: the samples that a stream of its blocks gives too.

    Args:
        path: a file, or "archive.zip:member".

    Returns:
        Float32 [n] mono at 16 kHz.

    Raises:
        ValueError: as `open_audio`, or the rate cannot be resampled.
    """
    with open_audio(path) as recording:
        blocks = list(to_16k(recording.blocks(seconds=1.0), recording.rate))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def to_mono(samples_NC: np.ndarray) -> np.ndarray:
    """Averages channels; whatever is not finite becomes 0, the rest is clipped to [-1, 1].

    Args:
        samples_NC: float [n, channels].

    Returns:
        Float32 [n].
    """
    finite_NC = np.nan_to_num(samples_NC, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(finite_NC.mean(axis=1), -1.0, 1.0).astype(np.float32, copy=False)


class Recording:
    """An open recording. `rate`, `channels` and `duration_s` are what its header says."""

    def __init__(self, path: str | Path) -> None:
        """Opens it; see `open_audio`.

        Args:
            path: a file, or "archive.zip:member".

        Raises:
            ValueError: it cannot be opened.
        """
        self.path = str(path)
        self._library = needed("soundfile")
        self._file: Any = self._opened()
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        known = self._file.frames < _UNKNOWN_FRAMES
        self.duration_s: float | None = self._file.frames / self.rate if known else None

    def blocks(self, seconds: float = 0.1) -> Iterator[np.ndarray]:
        """Reads on to the end. A file cut in the middle ends early, with a Python warning.

        Args:
            seconds: length of a block; the last one may be shorter.

        Yields:
            Float32 [n] mono, at the file's own rate.
        """
        buffer_NC = np.empty((max(1, round(seconds * self.rate)), self.channels), np.float32)
        position, damaged = self._file.tell(), self._looks_cut()
        while True:
            try:
                num_read = len(self._file.read(out=buffer_NC))
            except self._library.LibsndfileError:  # what came before the damage is in the buffer
                num_read = min(max(0, self._file.tell() - position), len(buffer_NC))
                damaged = True
            if num_read:
                position += num_read
                yield to_mono(buffer_NC[:num_read])
            if num_read < len(buffer_NC):
                break
        if damaged or position < self._file.frames < _UNKNOWN_FRAMES:
            read_s = position / self.rate
            warnings.warn(f"{self.path}: the file is cut: {read_s:.2f} s were read", stacklevel=2)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> "Recording":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _looks_cut(self) -> bool:
        notes = self._file.extra_info
        promised = _PROMISED.search(notes)
        short = promised is not None and int(promised[1]) < _UNKNOWN_LENGTH
        return short or _OGG_WITHOUT_END in notes

    def _opened(self) -> Any:
        source: Path | io.BytesIO = Path(self.path)
        archive, colon, member = self.path.partition(".zip:")
        if colon and not Path(self.path).exists():
            source = io.BytesIO(_zip_member(archive + ".zip", member))
        elif not Path(self.path).is_file():
            raise ValueError(f"{self.path}: there is no such file: check the path")
        size = source.stat().st_size if isinstance(source, Path) else len(source.getbuffer())
        if not size:
            raise ValueError(f"{self.path}: the file is empty: record or copy it again")
        try:
            file = self._library.SoundFile(source)
        except (self._library.LibsndfileError, OSError, TypeError) as error:
            reason = str(error).strip()
            raise ValueError(
                f"{self.path}: cannot be read as audio ({reason}): {_REMEDY}"
            ) from None
        if not file.frames:
            file.close()
            raise ValueError(f"{self.path}: there are no samples in it: {_REMEDY}")
        return file


def _zip_member(archive: str, member: str) -> bytes:
    if not Path(archive).is_file():
        raise ValueError(f"{archive}:{member}: there is no archive {archive}: check the path")
    try:
        with zipfile.ZipFile(archive) as opened:
            size = opened.getinfo(member).file_size  # no more than that is unpacked
            if size > _LARGEST_MEMBER:
                raise ValueError(
                    f"{archive}:{member}: unpacked, it has {size} bytes, and members of archives "
                    f"may have {_LARGEST_MEMBER}: unpack it to a file first"
                )
            return opened.read(member)
    except KeyError:
        remedy = f"`unzip -l {archive}` lists the members"
        raise ValueError(f"{archive}:{member}: no such member: {remedy}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        remedy = "make the archive again, without a password"
        raise ValueError(f"{archive}:{member}: cannot be read ({error}): {remedy}") from None
