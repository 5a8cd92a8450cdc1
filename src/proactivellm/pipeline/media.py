"""A source that is not text, as a pipeline has it: blocks in, units that arrive together out."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.units.text import TextSegmenter
from proactivellm.units.unit import Unit


@dataclass
class Replay:
    """What a model made of a source, kept when it is first taken in, for further policies.

    Attributes:
        steps: units that arrived together, seconds that had arrived, seconds spent on them.
        complete: whether the source was taken in to its end.
        made_by: who made them of what: front end, its conditions, question, files. Another one does
            it anew.
    """

    steps: list[tuple[list[Unit], float, float]] = field(default_factory=list)
    complete: bool = False
    made_by: tuple[object, ...] = ()


@dataclass
class MediaUnits:
    """Units of a source as it is taken in; iterate once.

    `end_s` of the units is what had arrived of the source when they were complete. The last unit
    of a turn is final.

    Args:
        model: has a front end.
        blocks: what arrives together, as the front end takes it.
        rate: of the blocks, in samples or frames per second.
        question: text that is read before each turn.
        replay: is filled; once it is complete, it is given instead of taking the source in again,
            with the times that were measured then.

    Attributes:
        received_s: seconds of the source that have arrived.
        spent_s: time that the front end spent on the last block.
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

    @property
    def kind(self) -> str:
        """Of the payload, as the log has it."""
        kind: str = self.model.front_end.kind
        return kind

    def __iter__(self) -> Iterator[list[Unit]]:
        replay = self.replay or Replay()
        if replay.complete:
            for units, self.received_s, self.spent_s in replay.steps:
                self.compute_s += self.spent_s
                yield units
            return
        replay.steps.clear()
        for units in self._take_in():
            self.compute_s += self.spent_s
            if self.replay is not None:
                replay.steps.append((units, self.received_s, self.spent_s))
            yield units
        replay.complete = True

    def _take_in(self) -> Iterator[list[Unit]]:
        ear = self.model.front_end.open(self.rate)
        asked = TextSegmenter(self.model.tokenizer).segment(self.question)
        asked = [replace(unit, final=False) for unit in asked]
        num_samples, begins = 0, True
        for block in itertools.chain(self.blocks, [None]):
            num_samples += 0 if block is None else len(block)
            self.received_s = num_samples / self.rate
            started = time.perf_counter()
            if block is None:
                units = ear.finish(self.received_s)
            else:
                units = ear.push(block, self.received_s)
            self.spent_s = time.perf_counter() - started
            told: list[Unit] = []
            for unit in units:  # a turn may end and the next one begin in one block
                told += [*asked, unit] if begins else [unit]
                begins = unit.final
            yield told


def open_media(
    model: StreamingCausalLM,
    files: Sequence[str],
    question: str = "",
    replay: Replay | None = None,
) -> MediaUnits:
    """Takes files in as if they were live, a unit at a time.

    Args:
        model: has a front end.
        files: of one source, joined.
        question: text that is read before each turn.
        replay: of an earlier time, or to be filled.

    Returns:
        Its units as they arrive.

    Raises:
        ValueError: if a file cannot be read, or the model has no front end.
    """
    front_end = model.front_end
    if front_end is None:
        raise ValueError(f"the model has no front end, and cannot take {files[0]}")
    made_by = (front_end, str(front_end.conditions), question, tuple(files))
    if replay is not None and replay.made_by != made_by:
        replay.made_by, replay.complete = made_by, False
    if replay is not None and replay.complete:
        return MediaUnits(model, (), 1, question, replay)
    rate, blocks = front_end.read(files)
    return MediaUnits(model, blocks, rate, question, replay)
