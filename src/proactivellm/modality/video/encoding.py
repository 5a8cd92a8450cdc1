"""Frames as a file of video that loses nothing (FFV1)."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from proactivellm.modality.speech.extra import needed


def write_clip(path: Path, frames_THWC: np.ndarray, fps: int) -> None:
    """Writes pictures uint8 [T, H, W, 3], so many a second, as a Matroska file.

    ValueError where the extra `video` is not installed.
    """
    library = needed("av", "video")
    with library.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "bgr0"
        stream.time_base = Fraction(1, fps)
        for number, image in enumerate(frames_THWC):
            frame = library.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
