"""Recordings and videos as the client sends them: piece by piece, at their own pace if wanted."""

import io
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import NamedTuple

PIECE_S = 0.1  # of sound
JPEG_QUALITY = 90


class Piece(NamedTuple):
    """What is sent at once, and for how long it lasts."""

    content: bytes | str  # PCM16, a JPEG file, or what is asked at this moment
    seconds: float


def sound(name: str) -> tuple[int, Iterator[Piece]]:
    """Sampling rate and pieces of a recording; ValueError if it cannot be read."""
    import numpy as np

    from proactivellm.modality.speech.files import Recording

    recording = Recording(name)

    def pieces() -> Iterator[Piece]:
        try:
            for block in recording.blocks(PIECE_S):
                samples = np.clip(block, -1, 1) * 32767
                yield Piece(samples.astype("<i2").tobytes(), len(block) / recording.rate)
        finally:
            recording.close()

    return recording.rate, pieces()


def pictures(name: str, fps: float, question: str, ask_at_s: float | None) -> Iterator[Piece]:
    """Frames of a video, so many a second, with a question at a time; None = it is no piece.

    Where the video ends before, the question comes at its end. ValueError if it cannot be read.
    """
    from proactivellm.modality.speech.extra import needed
    from proactivellm.modality.video.decoding import Video

    image, waits = needed("PIL.Image", "video"), ask_at_s is not None
    with Video(name, pictures_per_s=fps) as video:
        for number, frame in enumerate(video.frames(fps)):
            if waits and number / fps >= (ask_at_s or 0.0):
                waits = False
                yield Piece(question, 0.0)
            file = io.BytesIO()
            image.fromarray(frame.image).save(file, "JPEG", quality=JPEG_QUALITY)
            yield Piece(file.getvalue(), 1 / fps)
    if waits:
        yield Piece(question, 0.0)


async def played(pieces: Iterable[Piece], real_time: bool) -> AsyncIterator[bytes | str]:
    """What is sent, as it is read; in real time, each piece when it is over, as a device has it."""
    import asyncio

    began_s, over_s, left = time.monotonic(), 0.0, iter(pieces)
    while (piece := await asyncio.to_thread(next, left, None)) is not None:
        over_s += piece.seconds
        if real_time:
            await asyncio.sleep(max(0.0, began_s + over_s - time.monotonic()))
        yield piece.content
