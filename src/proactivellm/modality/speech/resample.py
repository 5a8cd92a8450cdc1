"""Streaming resampling to 16 kHz by libsoxr: the same output however the samples arrive.

In: float32 mono blocks [n] at any rate. Out: float32 mono blocks [m], in [-1, 1]; sample k of all
output stands for the time k / 16,000 s of the recording: the filter's delay is taken out.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from proactivellm.modality.speech.extra import needed

RATE = 16_000  # of all audio inside the library, in samples per second
_LOWEST, _HIGHEST = 1_000, 768_000


def check_rate(rate: int) -> None:
    """Refuse (ValueError) what is no rate of speech: 1,000 to 768,000 samples per second."""
    if not _LOWEST <= rate <= _HIGHEST:
        raise ValueError(f"a sample rate of {rate} Hz: speech has {_LOWEST:,} to {_HIGHEST:,} Hz")


class Resampler:
    """Resamples a stream to 16 kHz, block by block; ValueError if soxr is missing, or for the rate.

    Delay (soxr 1.1, quality HQ, pushes of 10 ms): libsoxr works in blocks, so that what it has
    returned is behind what it was given by at most 37 ms from 48 kHz, 40 ms from 44.1 or 22.05 kHz,
    84 ms from 11.025 kHz and 115 ms from 8 kHz; from 16 kHz there is none. `finish` returns the
    rest. In all, n samples become round(n * 16,000 / rate), or one more or less.
    """

    def __init__(self, rate: int) -> None:
        check_rate(rate)
        self._stream = None
        if rate != RATE:
            self._stream = needed("soxr").ResampleStream(rate, RATE, 1, "float32", "HQ")

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes the next samples, float32 [n]; returns what is complete, [m], often nothing."""
        return self._resampled(samples, last=False)

    def finish(self) -> np.ndarray:
        """Ends the stream, once; returns what was still on its way, float32 [m]."""
        return self._resampled(np.zeros(0, np.float32), last=True)

    def _resampled(self, samples: np.ndarray, last: bool) -> np.ndarray:
        if self._stream is None:
            return samples
        # A filter overshoots at full scale: clipped, as by any sound card.
        return np.clip(self._stream.resample_chunk(samples, last), -1.0, 1.0)


def to_16k(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Resamples a stream of float32 mono blocks [n] to 16 kHz; no block of it is empty."""
    resampler = Resampler(rate)
    for block in blocks:
        resampled = resampler.push(block)
        if resampled.size:
            yield resampled
    rest = resampler.finish()
    if rest.size:
        yield rest
