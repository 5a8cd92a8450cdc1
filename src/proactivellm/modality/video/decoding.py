"""Frames with their times, of whatever FFmpeg opens: files, folders of pictures, cameras, pipes.

In: a name. Out: upright RGB pictures, uint8 [H, W, 3], and the seconds at which they were shown.
"""

import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from proactivellm.modality.speech.extra import needed
from proactivellm.modality.video.extensions import PICTURES, is_address, pictures_in
from proactivellm.modality.video.timing import ROUNDING_S, resample

PICTURES_PER_S = 2.0  # of a folder, which has no times
PATIENCE_S = 10.0  # how long a source on the network may keep silent before it counts as stopped
SHORT_BY_S = 1.0  # a file that ends so much before the length in its header was cut


class Frame(NamedTuple):
    """A picture, and when it is shown."""

    image: np.ndarray  # uint8 [H, W, 3], upright
    time_s: float  # from the beginning of the source


class Video:
    """An open source of frames.

    Args:
        name: a file, a folder of pictures (in the order of their names), or an address of
            `extensions.ADDRESSES`.
        start_s: frames before this time are left out; a file is not decoded from the beginning.
        pictures_per_s: rate of the pictures in a folder.
        patience_s: a source on the network that sends nothing for so long counts as stopped; a pipe
            is waited for.

    Raises:
        ValueError: if it cannot be opened, or holds no pictures.
    """

    def __init__(
        self,
        name: str | Path,
        start_s: float = 0.0,
        pictures_per_s: float = PICTURES_PER_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name = str(name)
        self.start_s = start_s
        self._pictures_per_s = pictures_per_s
        self._library = needed("av", "video")
        self._patience_s = patience_s if is_address(self.name) else None
        self._files = self._found()
        self._container: Any = None
        if self._files is None:
            self._container = self._opened(self.name)
        self._ended = self._damage = ""  # why it ended early; what could not be decoded on the way

    def frames(self, fps: float | None = None) -> Iterator[Frame]:
        """Reads on to the end: all frames, or `fps` a second (see `timing.resample`).

        What is damaged is left out, and where a source breaks off, this ends, with a Python warning
        each: what was read stays.

        Raises:
            ValueError: if there is no frame at all.
        """
        timed = self._of_pictures() if self._files is not None else self._of_stream()
        time_s = None
        for time_s, frame in timed if fps is None else resample(timed, fps):
            yield Frame(self._upright(frame), time_s)
        if time_s is None:
            after = f" at {self.start_s:g} s or later" if self.start_s else ""
            why = self._ended or self._damage
            raise ValueError(
                f"{self.name}: no frame can be read{after}{f' ({why})' if why else ''}: "
                "record or copy it again"
            )
        for message in filter(None, (self._damage, self._ended or self._cut(time_s))):
            warnings.warn(f"{self.name}: {message}", stacklevel=2)

    def close(self) -> None:
        """Closes the file, or hangs up."""
        if self._container is not None:
            self._container.close()

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _found(self) -> list[Path] | None:
        """The pictures of a folder; None = it is one source, which is there."""
        path = Path(self.name)
        if is_address(self.name) or path.is_file():
            return None
        if not path.is_dir():
            raise ValueError(f"{self.name}: there is no such file: check the path")
        files = pictures_in(path)
        if not files:
            kinds = ", ".join(PICTURES)
            raise ValueError(f"{self.name}: a folder without pictures ({kinds}): give a file")
        return files

    def _opened(self, name: str) -> Any:
        # A library that waits for ever for a camera could not be stopped.
        timeout = {} if self._patience_s is None else {"timeout": self._patience_s}
        try:
            container = self._library.open(name, **timeout)
        except (self._library.FFmpegError, OSError) as error:
            raise ValueError(f"{name}: cannot be read as video ({_reason(error)})") from None
        if not container.streams.video:
            has = "it has sound alone" if container.streams.audio else "it has none"
            container.close()
            raise ValueError(f"{name}: there are no pictures in it ({has}): give a video")
        return container

    def _of_pictures(self) -> Iterator[tuple[float, Any]]:
        assert self._files is not None
        for number, file in enumerate(self._files):
            time_s = number / self._pictures_per_s
            if time_s < self.start_s - ROUNDING_S:
                continue
            container = self._opened(str(file))
            try:
                yield time_s, next(container.decode(video=0))
            except (self._library.FFmpegError, StopIteration) as error:
                self._damage = f"{file.name} was left out: it cannot be decoded ({_reason(error)})"
            finally:
                container.close()

    def _of_stream(self) -> Iterator[tuple[float, Any]]:
        """Frames from the start on; times never go back, and one that is missing is made up."""
        stream = self._container.streams.video[0]
        gap_s = float(1 / (stream.average_rate or Fraction(25)))
        origin_s = (
            None if stream.start_time is None else float(stream.start_time * stream.time_base)
        )
        self._seek(stream, origin_s or 0.0)
        last_s = None
        for frame in self._decoded(stream):
            time_s = frame.time
            if time_s is None:
                time_s = (origin_s or 0.0) if last_s is None else last_s + gap_s
            if origin_s is None:  # a live source tells no beginning
                origin_s = time_s
            last_s = time_s if last_s is None else max(time_s, last_s)
            if last_s - origin_s >= self.start_s - ROUNDING_S:
                yield last_s - origin_s, frame

    def _seek(self, stream: Any, origin_s: float) -> None:
        """Go to the last key frame before the start; where that cannot be, it is read up to it."""
        if not self.start_s:
            return
        try:
            place = int((self.start_s + origin_s) / stream.time_base)
            self._container.seek(place, stream=stream)
        except (self._library.FFmpegError, OSError):
            warnings.warn(f"{self.name}: it is read from its beginning", stacklevel=4)

    def _decoded(self, stream: Any) -> Iterator[Any]:
        """Frames of what arrives; packets that cannot be decoded are left out."""
        packets, num_damaged = self._container.demux(stream), 0
        while True:
            try:
                packet = next(packets, None)
            except (self._library.FFmpegError, OSError) as error:
                self._ended = self._stopped(error)
                break
            if packet is None:
                break
            try:
                frames = packet.decode()
            except self._library.FFmpegError as error:
                num_damaged += 1
                self._damage = f"{num_damaged} packets cannot be decoded ({_reason(error)})"
                continue
            yield from frames

    def _stopped(self, error: Exception) -> str:
        silent = isinstance(error, self._library.error.ExitError | TimeoutError)
        if silent and self._patience_s is not None:
            return f"nothing came for {self._patience_s:g} s: the source has stopped"
        return f"it breaks off ({_reason(error)})"

    def _cut(self, last_s: float) -> str:
        """What to say of a file that ends long before the end that its header tells."""
        length = None if self._container is None else self._container.duration
        if length is None or is_address(self.name):
            return ""
        length_s = length / 1e6
        if last_s >= length_s - SHORT_BY_S:
            return ""
        return f"it ends at {last_s:.1f} s of {length_s:.1f} s: the file is cut"

    def _upright(self, frame: Any) -> np.ndarray:
        """RGB as it is to be seen: cameras that were turned say so beside the picture."""
        image: np.ndarray = frame.to_ndarray(format="rgb24")
        quarters = round(getattr(frame, "rotation", 0) / 90) % 4  # counterclockwise
        return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


def _reason(error: BaseException) -> str:
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(told).strip().rstrip(".")
