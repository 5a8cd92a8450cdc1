"""A voice-activity gate: it lets turns of speech through, and holds silence and noise back.

In: 16 kHz mono samples [n], in pushes of any length. Out: `Passage`s, the same however the samples
arrived. The speech probability of a frame of 512 samples (32 ms) comes from Silero VAD
(`silero.py`), which hears every frame at the same level and without offset (`level.py`); of several
streams, in one forward.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field, model_validator

from proactivellm.files.toml import Strict
from proactivellm.modality.speech.encoder_work import JUDGE
from proactivellm.modality.speech.level import FRAME, Conditioner, level_db
from proactivellm.modality.speech.resample import RATE
from proactivellm.modality.speech.silero import NEW, judge, parts, silero
from proactivellm.modality.speech.together import Doing, Work, alone

_STAY = 0.7  # of the threshold, to stay in a turn: soft vowels of children fall to 0.35 of 1
_AFRESH = 156  # frames (5 s): in longer noise the detector gets used to it, and misses onsets
_LATE = 2 / 3  # of the longest turn: from there on a turn ends where it is quiet
_DIP_DB = 24.0  # quiet enough then, below the loudest frame; at the very end, anything is
_WORD_DB = 12.0  # a cut in a dip of less may go through a word
_CONTEXT = 16  # frames heard again when it starts afresh: out of nothing, a hum sounds like speech
_NOTHING = np.zeros(0, np.float32)


class GateSettings(Strict):
    """When a turn begins, what of it passes, and when it ends. All times are rounded to frames."""

    threshold: float = Field(0.5, gt=0, lt=1)
    """Speech probability from which on a frame is speech; in a turn, 0.7 of it is enough."""
    min_speech_s: float = Field(0.1, ge=0)
    """Speech needed, within twice this time, before a turn begins."""
    preroll_s: float = Field(0.25, ge=0)
    """Audio before the first frame of speech, and before speech after a pause, that passes too."""
    hang_s: float = Field(0.3, ge=0)
    """Silence after speech that passes at once; what comes after it waits for speech."""
    pause_s: float = Field(1.0, gt=0)
    """Silence after speech that ends a turn."""
    longest_s: float | None = Field(20.0, gt=1)
    """No more of a turn passes: in its last third it ends at the first silence, or where the voice
    dips (the later, the less), and at the latest here. About as long as the recordings that the
    model has learned from; None: no limit."""

    @model_validator(mode="after")
    def _pause_is_longer(self) -> "GateSettings":
        if self.pause_s < self.hang_s:
            raise ValueError(f"pause_s={self.pause_s} must not be below hang_s={self.hang_s}")
        return self


@dataclass(frozen=True)
class Passage:
    """Samples in a turn, or, without samples and with `ends_turn`, the end of the turn."""

    samples: np.ndarray = field(repr=False)
    """Float32 [n] at 16 kHz: a multiple of 512 but for the very last of a recording."""
    start_s: float
    """When the first sample was spoken, exact to the sample; of an end: when it was known."""
    ends_turn: bool = False
    """Whether the turn is over."""
    speech: tuple[bool, ...] = ()
    """Of each frame, whether it is speech."""
    is_cut: bool = False
    """Of an end: whether the turn was too long, and it may go through a word."""


class Gate:
    """Judges a stream frame by frame; one gate for one recording.

    A turn begins when `min_speech_s` of speech was heard: its first passage holds the pre-roll and
    all since. While it goes on, each frame is a passage of its own, at once. Of a pause, `hang_s`
    passes; the rest waits. If speech comes back before `pause_s` is over, the last `preroll_s` of
    what waited passes with it (`start_s` jumps by what was left out), else the turn ends. A turn
    that grows too long is cut; the next one begins at once if the voice goes on.
    """

    def __init__(self, settings: GateSettings | None = None) -> None:
        settings = settings or GateSettings()
        self._threshold = settings.threshold
        self._min_speech = max(1, _frames(settings.min_speech_s))
        self._hang, self._pause = _frames(settings.hang_s), max(1, _frames(settings.pause_s))
        self._preroll = _frames(settings.preroll_s)
        self._longest = None if settings.longest_s is None else _frames(settings.longest_s)
        self._detector, self._state = silero(), NEW
        # One frame of silence first: without it, words at the very start of a recording are missed.
        alone(self._speech(np.zeros(FRAME, np.float32)))
        self._rest = _NOTHING  # less than a frame
        self._num_judged = 0  # samples
        self._level = Conditioner()
        # The latest frames that have not passed, and whether they are speech.
        self._held: deque[tuple[np.ndarray, bool]] = deque()
        self._context: deque[np.ndarray] = deque(maxlen=_CONTEXT)  # as the detector heard them
        self._recent: deque[bool] = deque(maxlen=2 * self._min_speech)  # out of a turn: speech?
        self._in_turn, self._num_silent = False, 0
        self._num_passed, self._loudest_db = 0, -np.inf  # frames; of the turn

    def push(self, samples: np.ndarray) -> list[Passage]:
        """Takes the next samples, float32 [n] at 16 kHz; returns what is known to be in turns."""
        return alone(self.hear(samples))

    def finish(self) -> list[Passage]:
        """Ends the recording; returns what is left of a turn, and its end."""
        return alone(self.end())

    def hear(self, samples: np.ndarray) -> Doing[list[Passage]]:
        """Does what `push` does."""
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // FRAME * FRAME
        self._rest = samples[whole:].copy()
        passages = []
        for frame in samples[:whole].reshape(-1, FRAME):
            passages += yield from self._judge(frame)
        return passages

    def end(self) -> Doing[list[Passage]]:
        """Does what `finish` does."""
        tail, self._rest = self._rest, _NOTHING
        passages = (yield from self._judge(tail)) if len(tail) else []
        if self._in_turn:
            passages.append(self._end_of_turn())
        return passages

    def _judge(self, frame: np.ndarray) -> Doing[list[Passage]]:
        whole = np.pad(frame, (0, FRAME - len(frame)))  # the very last may be shorter
        heard = self._level.hear(whole)
        self._context.append(heard)
        threshold = self._threshold * (_STAY if self._in_turn else 1.0)
        is_speech = (yield from self._speech(heard)) >= threshold
        self._num_judged += len(frame)
        self._held.append((frame, is_speech))
        return self._go_on(is_speech) if self._in_turn else (yield from self._wait(is_speech))

    def _speech(self, frame: np.ndarray) -> Doing[float]:
        """The probability that the next frame is speech."""
        judged = yield Work(JUDGE, judge, self._detector, (frame, self._state))
        probability, self._state = parts(judged)
        return probability

    def _wait(self, is_speech: bool) -> Doing[list[Passage]]:
        self._recent.append(is_speech)
        if sum(self._recent) >= self._min_speech:
            self._in_turn, self._num_silent = True, 0
            self._forget(self._preroll + len(self._recent) - self._recent.index(True))
            self._begin_turn()
            return [self._pass()]
        self._num_silent = 0 if is_speech else self._num_silent + 1
        if self._num_silent >= _AFRESH:
            yield from self._listen_afresh()
        self._forget(self._preroll + 2 * self._min_speech)
        return []

    def _go_on(self, is_speech: bool) -> list[Passage]:
        level = level_db(self._held[-1][0])
        self._loudest_db = max(self._loudest_db, level)
        if is_speech:
            self._num_silent = 0
            self._forget(self._preroll + 1)
            return [self._pass(), *self._cut_if_long(level)]
        self._num_silent += 1
        if self._num_silent <= self._hang:
            self._forget(1)
            passages = [self._pass()]
        else:
            self._forget(self._preroll)
            passages = []
        if self._num_silent >= self._pause or self._is_late(np.inf):
            passages.append(self._end_of_turn())
        return passages

    def _cut_if_long(self, level: float) -> list[Passage]:
        """Ends a turn in the middle of speech, if need be; what follows begins another."""
        dip_db = self._loudest_db - level
        if not self._is_late(dip_db):
            return []
        self._num_passed = 0  # of the next one, which is the same voice
        is_cut = bool(dip_db < _WORD_DB)
        return [Passage(_NOTHING, self._num_judged / RATE, ends_turn=True, is_cut=is_cut)]

    def _is_late(self, dip_db: float) -> bool:
        """Whether the turn is so long that a dip of the voice of so many dB ends it."""
        if self._longest is None:
            return False
        length = self._num_passed / self._longest
        return length >= _LATE and dip_db >= _DIP_DB * (1 - length) / (1 - _LATE)

    def _begin_turn(self) -> None:
        frames = [frame for frame, _ in self._held]
        self._num_passed, self._loudest_db = 0, max(map(level_db, frames))
        self._level.begin_turn(np.concatenate(frames))

    def _listen_afresh(self) -> Doing[None]:
        self._num_silent, self._state = 0, NEW
        for frame in self._context:
            yield from self._speech(frame)

    def _pass(self) -> Passage:
        """The frames that are held."""
        frames, speech = zip(*self._held, strict=True)
        samples = np.concatenate(frames)
        self._num_passed += len(frames)
        self._held.clear()
        start_s = (self._num_judged - len(samples)) / RATE
        return Passage(self._level.condition(samples), start_s, speech=speech)

    def _forget(self, all_but: int) -> None:
        while len(self._held) > all_but:
            self._held.popleft()

    def _end_of_turn(self) -> Passage:
        self._in_turn = False
        self._recent.clear()
        return Passage(_NOTHING, self._num_judged / RATE, ends_turn=True)


def _frames(seconds: float) -> int:
    return round(seconds * RATE / FRAME)
