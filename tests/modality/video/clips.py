"""Small clips, made here: the brightness of a frame is its number times STEP."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

STEP = 10


def write_clip(
    path: Path,
    times_s: Sequence[float],
    size: tuple[int, int] = (32, 48),
    codec: str = "mpeg4",
    corner: bool = False,
) -> Path:
    """Frames of height and width `size` at times in seconds; white at the upper left if `corner`.

    Every frame is a key frame.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=100)
        stream.height, stream.width = size
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.gop_size = 1
        for number, time_s in enumerate(times_s):
            picture = np.full((*size, 3), number * STEP, np.uint8)
            if corner:
                picture[: size[0] // 2, : size[1] // 2] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file of a tenth of a second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def number_of(image: np.ndarray) -> int:
    """The number of a frame, by its brightness."""
    return round(float(image.mean()) / STEP)
