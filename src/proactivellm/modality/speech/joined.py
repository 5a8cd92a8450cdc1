"""Several files as one recording: blocks of samples, with a little silence between the files."""

from collections.abc import Iterable, Iterator
from contextlib import closing

import numpy as np

from proactivellm.modality.speech.files import Recording
from proactivellm.modality.speech.resample import RATE, Resampler

GAP_S = 0.1  # of silence between the files of one recording


def recorded_blocks(files: Iterable[str], seconds: float) -> tuple[int, Iterator[np.ndarray]]:
    """The rate of joined files in samples per second, and their float32 mono blocks of some
    seconds.

    Several files are brought to 16 kHz first. ValueError if one cannot be read (the first at once,
    others on reaching them).
    """
    files = list(files)
    if len(files) == 1:
        recording = Recording(files[0])
        return recording.rate, _closing(recording, seconds)
    return RATE, _cut(_joined(files), max(1, round(seconds * RATE)))


def _closing(recording: Recording, seconds: float) -> Iterator[np.ndarray]:
    with closing(recording):
        yield from recording.blocks(seconds)


def _joined(files: Iterable[str]) -> Iterator[np.ndarray]:
    for number, file in enumerate(files):
        if number:
            yield np.zeros(round(GAP_S * RATE), np.float32)
        with Recording(file) as recording:
            resampler = Resampler(recording.rate)
            for block in recording.blocks():
                yield resampler.push(block)
            yield resampler.finish()


def _cut(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if len(rest):
        yield rest
