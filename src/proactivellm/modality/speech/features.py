"""Log-mel frames as transformers' `WhisperFeatureExtractor` makes them, from audio as it arrives.

In: 16 kHz mono samples in pieces of any size, which do not change the frames. Out: the frames that
are complete, equal to the extractor's but for its floor (see `floor`). Legend: T = frames, F = mel
bands, N = samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

DYNAMIC_RANGE = 8.0  # decades of power below the loudest band of a recording


class LogMelStream:
    """Frames of one recording as its audio arrives; a value that `clone` copies.

    Frame t is centred on sample t * hop, so that it is complete n_fft / 2 samples later. The
    extractor gives bands, hop and window.
    """

    def __init__(self, extractor: WhisperFeatureExtractor) -> None:
        self.hop, self.n_fft = extractor.hop_length, extractor.n_fft
        self._window = _periodic_hann(self.n_fft)
        self._filters = np.asarray(extractor.mel_filters, dtype=np.float32)
        self._rest = np.zeros(0, dtype=np.float32)  # samples that frames to come will need
        self._started = False  # whether the mirrored samples before the start are in `_rest`
        self._peak = -np.inf  # log10 power of the loudest band so far
        self.num_samples = self.num_frames = 0

    @property
    def ahead(self) -> int:
        """Samples after its centre that a frame needs."""
        return self.n_fft // 2

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes the next samples [N], 16 kHz, in [-1, 1]; returns complete frames, float32 [T,
        F].
        """
        self.num_samples += len(samples)
        self._rest = np.concatenate([self._rest, np.asarray(samples, dtype=np.float32)])
        return self._frames()

    def finish(self) -> np.ndarray:
        """Ends the recording; returns the last of one frame per `hop` samples, [T, F] float32."""
        missing = -(-self.num_samples // self.hop) - self.num_frames
        self._rest = np.concatenate([self._rest, np.zeros(self.n_fft + self.hop, np.float32)])
        return self._frames(missing)

    def clone(self) -> LogMelStream:
        """An independent copy that continues from here."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)  # arrays are replaced, never changed
        return twin

    def _frames(self, at_most: int | None = None) -> np.ndarray:
        if not self._started and len(self._rest) > self.ahead:
            mirrored = self._rest[1 : self.ahead + 1][::-1]
            self._rest, self._started = np.concatenate([mirrored, self._rest]), True
        count = max(0, (len(self._rest) - self.n_fft) // self.hop + 1) if self._started else 0
        count = count if at_most is None else min(count, at_most)
        if not count:
            return np.zeros((0, self._filters.shape[1]), dtype=np.float32)
        cut = np.lib.stride_tricks.sliding_window_view(self._rest, self.n_fft)
        spectrum = np.fft.rfft(cut[: count * self.hop : self.hop][:count] * self._window)
        power_TF = (np.abs(spectrum).astype(np.float32) ** 2) @ self._filters
        log_TF = np.log10(np.maximum(power_TF, 1e-10))
        peaks_T = np.maximum.accumulate(np.append(self._peak, log_TF.max(1)))[1:]
        self._rest = self._rest[count * self.hop :]
        self._peak, self.num_frames = peaks_T[-1], self.num_frames + count
        log_TF = np.maximum(log_TF, peaks_T[:, None] - DYNAMIC_RANGE)
        return ((log_TF + 4.0) / 4.0).astype(np.float32)


def log_mel(samples: np.ndarray, extractor: WhisperFeatureExtractor) -> np.ndarray:
    """Frames of a whole recording [N], as a stream gives them: float32 [T, F], T = ceil(N /
    hop).
    """
    stream = LogMelStream(extractor)
    return np.concatenate([stream.push(samples), stream.finish()])


def floor(mel_TF: np.ndarray) -> np.ndarray:
    """Frames [T, F] of a whole recording with the floor of the extractor, whose frames they then
    are.

    It raises everything below (maximum of the recording - 8), in units of log10, to that floor; a
    stream knows only the maximum so far.
    """
    return np.maximum(mel_TF, mel_TF.max() - DYNAMIC_RANGE / 4.0) if len(mel_TF) else mel_TF


def _periodic_hann(size: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
