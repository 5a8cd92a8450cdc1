"""Audio samples in, source units of a causal LM out, each as soon as its audio has arrived.

Legend: N = samples, T = mel frames, F = mel bands, P = encoder outputs, D = encoder width,
H = LM width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from proactivellm.core.unit import Unit
from proactivellm.modality.speech.ctc import CtcWords
from proactivellm.modality.speech.encoder_stream import EncoderStream
from proactivellm.modality.speech.encoder_work import PROJECT
from proactivellm.modality.speech.features import LogMelStream
from proactivellm.modality.speech.resample import RATE
from proactivellm.modality.speech.together import Doing, Work, alone, apart

if TYPE_CHECKING:
    from proactivellm.modality.speech.front_end import SpeechFrontEnd


class SpeechStream:
    """A front end, in eval mode, at work on one recording or turn; a value that `clone` copies.

    Unit k covers the audio up to (k + 1) * `unit_s`, and comes out with it. The units are those of
    `SpeechFrontEnd.forward` over all the audio, and so are their embeddings. ValueError if its
    encoder cannot be streamed.

    Attributes:
        num_units: units that have come out, or would have, had they not lain before the start.
    """

    def __init__(self, front_end: SpeechFrontEnd) -> None:
        self.front_end = front_end
        self._mel = LogMelStream(front_end.extractor)
        self._encoder = EncoderStream(front_end.encoder)
        self._words = None if front_end.ctc is None else CtcWords(front_end.ctc)
        self._pending_PD: Tensor | None = None  # outputs that are no whole unit yet
        self._num_taken = 0  # outputs that are in units
        self.num_units = 0
        self._pieces: list[tuple[int, float]] = []  # first sample of each, and when it was spoken

    def push(self, samples: np.ndarray, start_s: float | None = None) -> list[Unit]:
        """Takes the next samples [N], 16 kHz, in [-1, 1]; returns the units that are complete now.

        `start_s` is when they were spoken, not before those that came before; None = right after
        them.
        """
        return alone(self.hear(samples, start_s))

    def finish(self) -> list[Unit]:
        """Ends the audio; the very last unit is final, or the bare end marker."""
        return alone(self.end())

    def hear(self, samples: np.ndarray, start_s: float | None = None) -> Doing[list[Unit]]:
        """Does what `push` does."""
        self._stamp(len(samples), start_s)
        outputs_PD = yield from self._encoder.hear(self._mel.push(samples))
        return (yield from self._units(outputs_PD))

    def end(self) -> Doing[list[Unit]]:
        """Does what `finish` does."""
        outputs_PD = yield from self._encoder.hear(self._mel.finish(), last=True)
        units = yield from self._units(outputs_PD, finished=True)
        if self._pending_PD is not None and len(self._pending_PD):
            unit = yield from self._unit(len(self._pending_PD))
            return [*units, replace(unit, final=True)]
        if units:
            return [*units[:-1], replace(units[-1], final=True)]
        return [Unit.end(self._time(self._mel.num_samples, end=True))]

    def clone(self) -> Self:
        """An independent copy that continues from here."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)  # tensors are replaced, never changed
        twin._mel, twin._encoder = self._mel.clone(), self._encoder.clone()
        twin._words = None if self._words is None else self._words.clone()
        twin._pieces = list(self._pieces)
        return twin

    def _units(self, outputs_PD: Tensor, finished: bool = False) -> Doing[list[Unit]]:
        """Units that are whole with these outputs."""
        if self._pending_PD is not None:
            outputs_PD = torch.cat([self._pending_PD, outputs_PD])
        self._pending_PD = outputs_PD
        units = []
        while (count := self._num_missing()) <= len(self._pending_PD):
            if not finished and self._ready(count) > self._mel.num_samples:
                break  # its window has arrived, its audio has not: units end where they should
            if count > 0:
                units.append((yield from self._unit(count)))
            else:  # all that would be in it lies before the start
                self.num_units += 1
        return units

    def _num_missing(self) -> int:
        """Outputs of the next unit."""
        size = self.front_end.settings.unit
        return (self.num_units + 1) * size - self.front_end.offset - self._num_taken

    def _ready(self, count: int) -> int:
        """Samples with which the block of the last of the next outputs is complete."""
        encoder = self.front_end.encoder
        block, offset = encoder.attention.block, encoder.attention.offset
        last = (self._num_taken + count) * encoder.pool - 1 + offset
        return (last // block + 1) * block * 2 * self._mel.hop

    def _unit(self, count: int) -> Doing[Unit]:
        """The unit of the next outputs."""
        assert self._pending_PD is not None
        ready = min(self._ready(count), self._mel.num_samples)
        start_s, end_s = self._time(min(self._begin(), ready), False), self._time(ready, True)
        outputs_1PD, first = self._pending_PD[None, :count], not self._num_taken
        run = _project_first if first else _project
        features_1EH = yield Work(PROJECT, run, self.front_end, outputs_1PD, count)
        self._pending_PD = self._pending_PD[count:]
        self._num_taken += count
        self.num_units += 1
        unit = Unit(features=features_1EH[0], start_s=start_s, end_s=end_s)
        if self._words is None:
            return unit
        self._words.push(outputs_1PD[0])
        return replace(unit, spoken=self._words.spoken, silent=self._words.silent)

    def _begin(self) -> int:
        """First sample of the next unit."""
        size = self.front_end.settings.unit * self.front_end.encoder.pool * 2 * self._mel.hop
        return self.num_units * size if self._num_taken else 0

    def _stamp(self, num_samples: int, start_s: float | None) -> None:
        """Notes when the next samples were spoken."""
        if not num_samples:
            return
        if not self._pieces:
            self._pieces.append((0, start_s or 0.0))
            return
        at = self._mel.num_samples
        due_s = self._time(at, end=True)
        if start_s is None or abs(start_s - due_s) < 0.5 / RATE:
            return
        if start_s < due_s:
            raise ValueError(f"start_s={start_s} lies before {due_s}, when the last piece ended")
        self._pieces.append((at, start_s))
        while len(self._pieces) > 1 and self._pieces[1][0] <= self._begin():
            self._pieces.pop(0)

    def _time(self, sample: int, end: bool) -> float:
        """When a sample was spoken, or, of an end, when the sample before it was over."""
        pieces = [piece for piece in self._pieces if piece[0] < sample + (not end)]
        first, start_s = pieces[-1] if pieces else (0, 0.0)
        return start_s + (sample - first) / RATE


def _project(
    front_end: SpeechFrontEnd, outputs: Sequence[Tensor], first: bool = False
) -> Sequence[Tensor]:
    """Embeddings [1, E, H] of each; all have as many outputs [1, P, D]."""
    return apart(front_end.project(torch.cat(list(outputs)), first))


def _project_first(front_end: SpeechFrontEnd, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
    return _project(front_end, outputs, first=True)
