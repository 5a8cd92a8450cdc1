"""Listening to a recording turn by turn: a gate cuts it, and each turn is a stream of its own.

In: 16 kHz mono samples in pushes of any length. Out: the units of turns; the last unit of a turn,
or the bare end marker after it, is final. Silence between turns reaches no encoder.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from proactivellm.core.unit import Unit
from proactivellm.modality.speech.gate import Gate, GateSettings, Passage
from proactivellm.modality.speech.level import FRAME
from proactivellm.modality.speech.resample import RATE, Resampler
from proactivellm.modality.speech.speech_stream import SpeechStream
from proactivellm.modality.speech.together import Doing, alone

if TYPE_CHECKING:
    from proactivellm.modality.speech.front_end import SpeechFrontEnd

_VOICED = 0.3  # of its frames are speech, or a unit is silent: the detector lags by 2 or 3 frames


class SpeechEar:
    """An `Ear` for one recording of so many samples a second; the front end is in eval mode.

    ValueError as `Listener`, or the rate cannot be resampled.
    """

    def __init__(self, front_end: SpeechFrontEnd, rate: int) -> None:
        self._listener = Listener(front_end, front_end.gate)
        self._resampler = Resampler(rate)
        self._told_of_cuts = False

    def push(self, block: np.ndarray, now_s: float) -> list[Unit]:
        """Takes float32 mono samples [n]; returns the units that are complete now."""
        return alone(self.hear(block, now_s))

    def finish(self, now_s: float) -> list[Unit]:
        """Ends the recording; returns its last units."""
        return alone(self.hear(None, now_s))

    def hear(self, block: np.ndarray | None, now_s: float) -> Doing[list[Unit]]:
        """Does what `push`, or of None `finish`, does."""
        resampler = self._resampler
        samples = resampler.finish() if block is None else resampler.push(block)
        units = yield from self._listener.hear(samples, last=block is None)
        self._tell_of_cuts()
        return _stamped(units, now_s)

    def _tell_of_cuts(self) -> None:
        if self._listener.num_cuts and not self._told_of_cuts:
            self._told_of_cuts = True
            assert (gate := self._listener.front_end.gate) is not None
            warnings.warn(
                f"speech without a pause was cut after {gate.longest_s:g} s at most: "
                "words at the cuts may be lost (longest_s of the gate in speech/speech.json)",
                stacklevel=2,
            )


class Listener:
    """Turns of one recording; without a gate, all of it is one turn.

    ValueError if the front end cannot be streamed, or the gate's detector is not installed.
    """

    def __init__(self, front_end: SpeechFrontEnd, gate: GateSettings | None) -> None:
        self.front_end = front_end
        self._gate = None if gate is None else Gate(gate)
        self._turn: SpeechStream | None = SpeechStream(front_end) if gate is None else None
        self._speech: list[bool] = []  # of the frames of the turn
        self._silent: list[Unit] = []  # units that are held back
        self.num_cuts = 0  # turns that grew too long, and whose ends may go through a word

    def push(self, samples: np.ndarray) -> list[Unit]:
        """Takes the next samples [N], 16 kHz, in [-1, 1]; returns the units that are complete now.

        Times are those of the recording. A final unit ends a turn, and the next one begins another.
        """
        return alone(self.hear(samples))

    def finish(self) -> list[Unit]:
        """Ends the recording; returns the last units, none if no turn is open."""
        return alone(self.hear(np.zeros(0, np.float32), last=True))

    def hear(self, samples: np.ndarray, last: bool = False) -> Doing[list[Unit]]:
        """Does what `push` does, and after the `last` samples what `finish` does."""
        if self._gate is not None:
            passages = yield from self._gate.hear(samples)
            if last:
                passages += yield from self._gate.end()
            return (yield from self._pass(passages))
        assert self._turn is not None
        units = yield from self._turn.hear(samples)
        return units + (yield from self._turn.end()) if last else units

    def _pass(self, passages: list[Passage]) -> Doing[list[Unit]]:
        units = []
        for passage in passages:
            if len(passage.samples):
                turn = self._turn = self._turn or SpeechStream(self.front_end)
                self._speech += passage.speech
                arrived = yield from turn.hear(passage.samples, passage.start_s)
                units += self._voiced(arrived, turn.num_units - len(arrived))
            if passage.ends_turn and self._turn is not None:
                units += yield from self._end(self._turn)
                self._turn = None
                self.num_cuts += passage.is_cut
        return units

    def _voiced(self, units: list[Unit], first: int) -> list[Unit]:
        """Units with speech in them, silent ones before them included; `first` is their number."""
        # Nobody said anything in a silent unit, so there is nothing to be written after it. A model
        # asked all the same finds little attention on the newest unit, and writes of its own.
        voiced = []
        for index, unit in enumerate(units, start=first):
            self._silent.append(unit)
            if self._is_voiced(index):  # the gate has said so, whatever the encoder hears
                voiced.append(replace(_joined(self._silent), silent=False))
                self._silent = []
        return voiced

    def _is_voiced(self, index: int) -> bool:
        """Whether a unit has speech in it, or lies before the first speech of its turn."""
        size = self.front_end.unit_s * RATE / FRAME  # in frames
        begin, end = round(index * size), round((index + 1) * size)
        heard = self._speech[begin:end]
        return sum(heard) >= _VOICED * len(heard) or not any(self._speech[:begin])

    def _end(self, turn: SpeechStream) -> Doing[list[Unit]]:
        """The last units of a turn; what was held back is read with the very last."""
        *units, last = yield from turn.end()
        voiced = self._voiced(units, turn.num_units - len(units) - (not last.is_end))
        held, self._silent, self._speech = self._silent, [], []
        return [*voiced, _joined([*held, last])]


def _stamped(units: Iterable[Unit], now_s: float) -> list[Unit]:
    """Units that could be read at this time, however much earlier their audio was over."""
    return [replace(unit, start_s=min(unit.start_s, now_s), end_s=now_s) for unit in units]


def _joined(units: list[Unit]) -> Unit:
    if len(units) == 1:
        return units[0]
    features_EH = torch.cat([unit.features for unit in units if unit.features is not None])
    return replace(units[-1], features=features_EH, start_s=units[0].start_s)
