"""Audio as a pipeline has it: blocks of samples in, units that arrive together out."""

import itertools
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from proactivellm.audio.files import Recording, open_audio
from proactivellm.audio.resample import GAP_S, RATE, Resampler
from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.speech.turns import Listener
from proactivellm.units.text import TextSegmenter
from proactivellm.units.unit import Unit


@dataclass
class Replay:
    """What a model made of a recording, kept when it is first heard, for further policies.

    Attributes:
        steps: units that arrived together, seconds that had arrived, seconds spent on them.
        complete: whether the recording was heard to its end.
        heard_by: who heard what: front end, gate, question, files. Another one hears it anew.
    """

    steps: list[tuple[list[Unit], float, float]] = field(default_factory=list)
    complete: bool = False
    heard_by: tuple[object, ...] = ()


@dataclass
class Heard:
    """Units of a recording as it is listened to; iterate once.

    `end_s` of the units is what had arrived of the recording when they were complete. The last unit
    of a turn is final.

    Args:
        model: has a front end.
        blocks: float32 mono blocks [n].
        rate: of the blocks, in samples per second.
        question: text that is read before each turn.
        replay: is filled; once it is complete, it is given instead of listening again, with the
            times that were measured then.

    Attributes:
        received_s: seconds of the recording that have arrived.
        spent_s: time spent on the last block: gate, features, encoder.
        compute_s: time spent on all of them.
    """

    model: StreamingCausalLM
    blocks: Iterable[np.ndarray]
    rate: int
    question: str = ""
    replay: Replay | None = None
    received_s: float = 0.0
    spent_s: float = 0.0
    compute_s: float = 0.0

    def __iter__(self) -> Iterator[list[Unit]]:
        replay = self.replay or Replay()
        if replay.complete:
            for units, self.received_s, self.spent_s in replay.steps:
                self.compute_s += self.spent_s
                yield units
            return
        replay.steps.clear()
        for units in self._listen():
            self.compute_s += self.spent_s
            if self.replay is not None:
                replay.steps.append((units, self.received_s, self.spent_s))
            yield units
        replay.complete = True

    def _listen(self) -> Iterator[list[Unit]]:
        front_end = self.model.front_end
        assert front_end is not None, "the model does not listen"
        self._listener, self._told_of_cuts = Listener(front_end, front_end.gate), False
        resampler = Resampler(self.rate)
        asked = TextSegmenter(self.model.tokenizer).segment(self.question)
        asked = [replace(unit, final=False) for unit in asked]
        num_samples, begins = 0, True
        for block in itertools.chain(self.blocks, [None]):
            num_samples += 0 if block is None else len(block)
            self.received_s = num_samples / self.rate
            started = time.perf_counter()
            if block is None:
                units = [*self._push(resampler.finish()), *self._stamped(self._listener.finish())]
            else:
                units = self._push(resampler.push(block))
            self.spent_s = time.perf_counter() - started
            told: list[Unit] = []
            for unit in units:  # a turn may end and the next one begin in one block
                told += [*asked, unit] if begins else [unit]
                begins = unit.final
            self._tell_of_cuts()
            yield told

    def _tell_of_cuts(self) -> None:
        if self._listener.num_cuts and not self._told_of_cuts:
            self._told_of_cuts = True
            assert (gate := self.model.front_end.gate) is not None
            warnings.warn(
                f"speech without a pause was cut after {gate.longest_s:g} s at most: "
                "words at the cuts may be lost (longest_s of the gate in speech/speech.json)",
                stacklevel=2,
            )

    def _push(self, samples: np.ndarray) -> list[Unit]:
        return self._stamped(self._listener.push(samples))

    def _stamped(self, units: Iterable[Unit]) -> list[Unit]:
        now_s = self.received_s
        return [replace(unit, start_s=min(unit.start_s, now_s), end_s=now_s) for unit in units]


def hear(
    model: StreamingCausalLM,
    files: Sequence[str],
    question: str = "",
    replay: Replay | None = None,
) -> Heard:
    """Listens to files as if they were live, a unit of audio at a time.

    Args:
        model: has a front end.
        files: audio, joined.
        question: text that is read before each turn.
        replay: of an earlier time, or to be filled.

    Returns:
        Its units as they arrive.

    Raises:
        ValueError: if a file cannot be read, or the model has no front end.
    """
    if model.front_end is None:
        raise ValueError("the model has no front end for speech: give --model one that listens")
    heard_by = (model.front_end, model.front_end.gate, question, tuple(files))
    if replay is not None and replay.heard_by != heard_by:
        replay.heard_by, replay.complete = heard_by, False
    if replay is not None and replay.complete:
        return Heard(model, (), RATE, question, replay)
    rate, blocks = recorded_blocks(files, model.front_end.unit_s)
    return Heard(model, blocks, rate, question, replay)


def recorded_blocks(files: Iterable[str], seconds: float) -> tuple[int, Iterator[np.ndarray]]:
    """Blocks of files that are joined, with a little silence between them.

    Args:
        files: audio; where there are several, each is brought to 16 kHz first.
        seconds: length of a block, whatever the files' lengths; the last one may be shorter.

    Returns:
        Their rate in samples per second, and float32 mono blocks.

    Raises:
        ValueError: if a file cannot be read (the first at once, others on reaching them).
    """
    files = list(files)
    if len(files) == 1:
        recording = open_audio(files[0])
        return recording.rate, _closing(recording, seconds)
    return RATE, _cut(_joined(files), max(1, round(seconds * RATE)))


def _closing(recording: Recording, seconds: float) -> Iterator[np.ndarray]:
    with closing(recording):
        yield from recording.blocks(seconds)


def _joined(files: Iterable[str]) -> Iterator[np.ndarray]:
    for number, file in enumerate(files):
        if number:
            yield np.zeros(round(GAP_S * RATE), np.float32)
        with open_audio(file) as recording:
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
