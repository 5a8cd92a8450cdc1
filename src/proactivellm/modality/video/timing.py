"""Frames at a steady rate, chosen by the times at which they were shown."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

Frame = TypeVar("Frame")
ROUNDING_S = 1e-6  # times are fractions in a file, and floats here


def resample(timed: Iterable[tuple[float, Frame]], fps: float) -> Iterator[tuple[float, Frame]]:
    """What is shown at the first frame's time and every 1 / fps seconds after it.

    Each of these times comes with the last frame that had begun by then, so that frames of any
    rate, a changing one too, are left out or repeated. One is known when the next frame has come;
    the last frame is shown for as long as the one before it, 1 / fps at most.

    Args:
        timed: time in seconds, not decreasing, and frame.
    """
    shown: tuple[float, Frame] | None = None
    start = shown_for = 0.0
    count = 0
    for begins, frame in timed:
        if shown is None:
            start = begins
        else:
            while (at := start + count / fps) < begins - ROUNDING_S:
                yield at, shown[1]
                count += 1
            shown_for = begins - shown[0]
        shown = begins, frame
    if shown is not None:
        end = shown[0] + min(shown_for, 1 / fps)
        while not count or start + count / fps < end - ROUNDING_S:
            yield start + count / fps, shown[1]
            count += 1
