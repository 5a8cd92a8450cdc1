"""Normalises the level and offset of recordings that are too quiet, or off zero.

In: frames of 512 samples at 16 kHz, as they come. Out: a frame for the detector of speech, always
at the level it knows best; and, turn by turn, the samples for the model, which stay as they are
where level and offset are usual.
"""

import numpy as np

from proactivellm.modality.speech.resample import RATE

FRAME = 512  # samples
# The detector's word for "speech" falls with the level: at -40 dB it misses a third of a voice.
_DETECTED_DB = -23.0  # level of its loudest frames
_MOST_GAIN_DB = 50.0  # what is quieter than that is silence
_FORGET_DB = 6.0 * FRAME / RATE  # a frame: a loud sound makes nobody deaf for long
_MEAN_FRAMES = round(1.0 * RATE / FRAME)  # over which the offset is averaged
_QUIET_DB = -48.0  # a turn that begins below is too quiet to be understood
_HEARD_DB = -28.0  # level of the loudest frame of such a turn, raised
_OFF_ZERO = 0.05  # an offset of so much of the level is one: usual recordings have 0.005 at most
_SILENCE_DB = -120.0


def level_db(samples: np.ndarray) -> float:
    """Level of samples [n], n >= 1: 20 log10 of their root mean square, at least -120 dB."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return max(_SILENCE_DB, 10 * np.log10(power + 1e-12))


class Conditioner:
    """Follows level and offset of one recording, frame by frame: nothing later is looked at."""

    def __init__(self) -> None:
        self._offset, self._num_frames = 0.0, 0
        self._loudest_db = _SILENCE_DB  # lately
        self._turn_offset, self._turn_loudest_db, self._is_quiet = 0.0, _SILENCE_DB, False

    def hear(self, frame: np.ndarray) -> np.ndarray:
        """Takes the next frame, float32 [512]; returns it centred, raised where it is quiet."""
        self._num_frames += 1
        share = 1 / min(self._num_frames, _MEAN_FRAMES)
        self._offset += share * (float(frame.mean()) - self._offset)
        centred = frame - np.float32(self._offset)
        self._loudest_db = max(level_db(centred), self._loudest_db - _FORGET_DB)
        gain_db = min(max(0.0, _DETECTED_DB - self._loudest_db), _MOST_GAIN_DB)
        return np.clip(_raised(centred, gain_db), -1.0, 1.0)

    def begin_turn(self, samples: np.ndarray) -> None:
        """Decides by the begin of a turn, float32 [n], whether it is raised and centred."""
        level = level_db(samples - np.float32(self._offset))
        is_off_zero = abs(self._offset) > _OFF_ZERO * 10 ** (level / 20)
        self._turn_offset = self._offset if is_off_zero else 0.0
        self._turn_loudest_db = self._loudest_of(samples)
        self._is_quiet = self._turn_loudest_db < _QUIET_DB

    def condition(self, samples: np.ndarray) -> np.ndarray:
        """The next samples of the turn for the model: as they are where they are usual."""
        if self._turn_offset:
            samples = samples - np.float32(self._turn_offset)
        if not self._is_quiet or not len(samples):
            return samples
        # The loudest frame so far: within a turn the gain falls, and never rises.
        self._turn_loudest_db = max(self._turn_loudest_db, self._loudest_of(samples))
        return _raised(samples, max(0.0, _HEARD_DB - self._turn_loudest_db))

    def _loudest_of(self, samples: np.ndarray) -> float:
        centred = samples - np.float32(self._turn_offset or self._offset)
        return max(level_db(centred[at : at + FRAME]) for at in range(0, len(samples), FRAME))


def _raised(samples: np.ndarray, gain_db: float) -> np.ndarray:
    return samples * np.float32(10 ** (gain_db / 20)) if gain_db else samples
