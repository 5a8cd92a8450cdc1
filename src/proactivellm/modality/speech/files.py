"""Audio files, read block by block: whatever libsndfile decodes, also members of zip archives.

In: a path, or "archive.zip:member". Out: float32 mono blocks [n] in [-1, 1] at the file's own rate
(`Recording`), or the whole at 16 kHz (`read_audio`).
"""

import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from proactivellm.modality.speech.extra import needed
from proactivellm.modality.speech.resample import check_rate, to_16k
from proactivellm.modality.speech.wav import UNKNOWN_LENGTH, WithLength, place_of_missing_length

_REMEDY = "give wav, flac, ogg, opus or mp3, for example from: ffmpeg -i INPUT out.wav"
# What libsndfile notes about a header that promises more than the file holds. A length near 2**31
# or 2**32 is how a program says that it writes to a pipe and does not know.
_PROMISED = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be \d+\)")
# Floats beyond this, where 1 is full scale, are not loud: they are at the scale of integers.
LOUDEST = 8.0
SHARE_OF_LOUD = 0.01  # fewer are single faults
_SCALES = {2.0**15: 16, 2.0**23: 24, 2.0**31: 32}  # of integers, and their bits
_OGG_WITHOUT_END = "Last page lacks an end-of-stream bit"
_UNKNOWN_FRAMES = 2**62
_LARGEST_MEMBER = 2**30  # bytes, read to memory whole; an archive can say that it unpacks to more


def read_audio(path: str | Path) -> np.ndarray:
    """The whole of a recording, float32 [n] mono at 16 kHz; ValueError as `Recording`."""
    with Recording(path) as recording:
        blocks = list(to_16k(recording.blocks(seconds=1.0), recording.rate))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def to_mono(samples_NC: np.ndarray) -> np.ndarray:
    """Averages channels [n, channels] to [n] in [-1, 1]; what is not finite becomes 0."""
    finite_NC = np.nan_to_num(samples_NC, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(finite_NC.mean(axis=1), -1.0, 1.0).astype(np.float32, copy=False)


class Recording:
    """An open recording. `rate`, `channels`, `subtype` (how samples are stored, as libsndfile names
    it) and `duration_s` are what its header says.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._library = needed("soundfile")
        self._source = self._found()
        self._file: Any = self._opened()
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.subtype: str = self._file.subtype
        known = self._file.frames < _UNKNOWN_FRAMES
        self.duration_s: float | None = self._file.frames / self.rate if known else None
        self._position = 0
        try:
            check_rate(self.rate)
        except ValueError as error:
            self.close()
            raise ValueError(f"{self.path}: {error}") from None

    def blocks(self, seconds: float = 0.1) -> Iterator[np.ndarray]:
        """Reads on to the end: float32 [n] mono, at the file's own rate, n of so many seconds at
        most.

        A file cut in the middle ends early, with a Python warning. Floats at the scale of integers
        are brought to [-1, 1], with a warning as well.
        """
        buffer_NC = np.empty((max(1, round(seconds * self.rate)), self.channels), np.float32)
        damaged, scale, num_bad = self._looks_cut(), self._scale(), 0
        while True:
            num_read, failed = self._fill(buffer_NC)
            damaged |= failed
            if num_read:
                samples_NC = buffer_NC[:num_read]
                num_bad += int(np.count_nonzero(~np.isfinite(samples_NC)))
                yield to_mono(samples_NC / scale if scale != 1 else samples_NC)
            if num_read < len(buffer_NC):
                break
        if num_bad:
            self._warn(f"{num_bad} samples are no numbers, and were taken for silence")
        if damaged or self._position < self._file.frames < _UNKNOWN_FRAMES:
            self._warn(f"the file is cut: {self._position / self.rate:.2f} s were read")

    def _fill(self, buffer_NC: np.ndarray) -> tuple[int, bool]:
        """Reads on into the buffer: how many samples, and whether there is damage after them."""
        failed = False
        try:
            num_read = len(self._file.read(out=buffer_NC))
        except self._library.LibsndfileError:  # what came before the damage is in the buffer
            here = self._file.tell() if self._file.seekable() else self._position
            num_read, failed = min(max(0, here - self._position), len(buffer_NC)), True
        self._position += num_read
        return num_read, failed

    def _scale(self) -> float:
        """What full scale is: 1, but where floats are at the scale of integers. One more pass."""
        if self._file.subtype not in ("FLOAT", "DOUBLE") or self._position:
            return 1.0
        peak = num_loud = num_all = 0.0
        for block_NC in self._file.blocks(blocksize=1 << 16, dtype="float32", always_2d=True):
            sizes_NC = np.nan_to_num(np.abs(block_NC), nan=0.0, posinf=0.0)
            peak = max(peak, float(sizes_NC.max(initial=0.0)))
            num_loud += np.count_nonzero(sizes_NC > LOUDEST)
            num_all += sizes_NC.size
        self._file.close()
        self._file = self._opened()
        if num_loud <= SHARE_OF_LOUD * num_all:
            return 1.0
        scale = next((scale for scale in _SCALES if peak <= scale), None)
        if scale is None:
            raise ValueError(f"{self.path}: floats of up to {peak:.3g}, where 1 is full scale")
        self._warn(
            f"floats of up to {peak:.0f}, where 1 is full scale, are taken for "
            f"{_SCALES[scale]}-bit integers and divided by {scale:.0f}"
        )
        return scale

    def _warn(self, message: str) -> None:
        warnings.warn(f"{self.path}: {message}", stacklevel=3)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        if not isinstance(self._source, Path):
            self._source.close()

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
        short = promised is not None and int(promised[1]) < UNKNOWN_LENGTH
        return short or _OGG_WITHOUT_END in notes

    def _found(self) -> "Path | BinaryIO | WithLength":
        """What libsndfile is to open: the file, the member, or either with the length it lacks."""
        archive, colon, member = self.path.partition(".zip:")
        path = Path(self.path)
        if is_member := bool(colon) and not path.exists():
            stream: BinaryIO = io.BytesIO(_zip_member(archive + ".zip", member))
        elif not path.is_file():
            reason = "that is no file" if path.exists() else "there is no such file"
            raise ValueError(f"{self.path}: {reason}: check the path")
        else:
            try:
                stream = open(path, "rb")
            except OSError as error:
                raise ValueError(f"{self.path}: cannot be read: {error.strerror}") from None
        is_empty = not stream.seek(0, io.SEEK_END)
        stream.seek(0)
        place = place_of_missing_length(stream)
        if place is not None:
            return WithLength(stream, place)
        if not is_member:
            stream.close()
        if is_empty:
            raise ValueError(f"{self.path}: the file is empty: record or copy it again")
        return stream if is_member else path

    def _opened(self) -> Any:
        if not isinstance(self._source, Path):
            self._source.seek(0)
        try:
            file = self._library.SoundFile(self._source)
        except (self._library.LibsndfileError, OSError, TypeError) as error:
            reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
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
