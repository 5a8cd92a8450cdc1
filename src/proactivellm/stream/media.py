"""A source that is not text: blocks in, units that arrive together out."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.base import Ear, Heard, HearsTogether, WorksInStages
from proactivellm.modality.stages import Pipeline, Stage
from proactivellm.modality.text import TextSegmenter


class Arrival(NamedTuple):
    """Units that arrived together, seconds that had arrived, seconds spent on making them."""

    units: list[Unit]
    received_s: float
    spent_s: float


class Asking(NamedTuple):
    """What is asked while a source runs, pushed between two blocks of it."""

    text: str


Pushed = np.ndarray | Asking | None  # None = the source has ended


class Hearing:
    """A front end at work on one source, with a question that is read before each turn.

    Where the prompt has a place for it, the question is `opening` there, else units of its own. One
    that is asked while the source runs is one unit, and nothing is written before it.

    Args:
        rate: samples or frames per second.
        ask_at_s: when the question is asked, of the one source; None = before each turn.
        tells_turns: whether its stream has events of where turns begin and end in the media.
        waits: whether nothing is written before an `Asking` is pushed, or the source has ended.
        depth: of the thoughts about it, see `Engine.ask`.
    """

    def __init__(
        self,
        model: StreamingCausalLM,
        rate: int,
        question: str = "",
        tells_turns: bool = False,
        ask_at_s: float | None = None,
        waits: bool = False,
        depth: int | None = None,
    ) -> None:
        self.front_end = model.front_end
        self.kind: str = self.front_end.kind
        self.tells_turns = tells_turns
        self._rate, self._num_samples = rate, 0
        self._ear = self.front_end.open(rate)
        self._ask_at_s = ask_at_s
        self.opening = opening_question(model, question) if ask_at_s is None else []
        self._tokenizer = model.tokenizer
        self._asked = [] if self.opening else self._words(question)
        self._waits, self.depth = waits, depth
        self._begins = True  # whether the next unit begins a turn

    def push(self, block: Pushed) -> Arrival:
        """Takes what arrived next.

        `end_s` of the units is what had arrived when they were complete. The last unit of a turn is
        final.
        """
        (arrival,) = hear([(self, block)])
        if isinstance(arrival, Exception):
            raise arrival
        return arrival

    def take(self, block: np.ndarray | None) -> Heard[Ear]:
        """Notes what arrived next; it is heard by `hear`, or in stages."""
        self._num_samples += 0 if block is None else len(block)
        return Heard(self._ear, block, self._num_samples / self._rate)

    @property
    def stages(self) -> list[Stage] | None:
        """Those of its ear; None = all is done at once."""
        return self._ear.stages() if isinstance(self._ear, WorksInStages) else None

    def ask(self, heard: Sequence[Unit], now_s: float) -> list[Unit]:
        """The units that were heard up to now, with the question before each turn."""
        if self._ask_at_s is not None:
            return self._ask_within(heard, now_s, self._ask_at_s)
        if self._waits:
            return [replace(unit, holds=True) for unit in heard]
        units: list[Unit] = []
        for unit in heard:  # a turn may end and the next one begin in one block
            units += [*self._asked, unit] if self._begins else [unit]
            self._begins = unit.final
        return units

    def _ask_within(self, heard: Sequence[Unit], now_s: float, at_s: float) -> list[Unit]:
        """With the question once its time has come, or the source has ended before."""
        units: list[Unit] = []
        for unit in heard:
            if unit.final or unit.end_s > at_s:
                units += self._put(at_s)
            units.append(replace(unit, holds=bool(self._asked)))
        return units + (self._put(at_s) if now_s >= at_s and not _ends(units) else [])

    def asked(self, question: Asking) -> Arrival:
        """The question, after all that was taken so far; from here on it may be written."""
        now_s = self._num_samples / self._rate
        self._asked, self._waits = self._words(question.text), False
        return Arrival(self._put(now_s), now_s, 0.0)

    def _put(self, at_s: float) -> list[Unit]:
        """The question, in one unit, as words would take the places of what is in sight."""
        words, self._asked = self._asked, []
        return _one_unit(words, at_s)

    def _words(self, text: str) -> list[Unit]:
        words = TextSegmenter(self._tokenizer).segment(text)
        return [replace(word, final=False) for word in words]


def _ends(units: Sequence[Unit]) -> bool:
    return bool(units) and units[-1].final


def asking_units(model: StreamingCausalLM, asking: Asking, at_s: float) -> list[Unit]:
    """A question after what was read, and nothing after it; without words, the end alone."""
    words = TextSegmenter(model.tokenizer).segment(asking.text)
    return [*_one_unit(words, at_s), Unit.end(at_s)]


def _one_unit(words: Sequence[Unit], at_s: float) -> list[Unit]:
    ids = tuple(token_id for word in words for token_id in word.token_ids)
    text = " ".join(word.text for word in words)
    return [Unit(text, ids, start_s=at_s, end_s=at_s, asks=True)] if words else []


def opening_question(model: StreamingCausalLM, question: str) -> list[int]:
    """Ids of a question that stands in the prompt; none where the model's has no place for it."""
    if model.prompt.num_open is None or not question.strip():
        return []
    return TextSegmenter(model.tokenizer).whole(question.strip())


def hear(pushes: Sequence[tuple[Hearing, Pushed]]) -> list[Arrival | Exception]:
    """What becomes of what arrived next of some sources of one model, or why one cannot go on.

    A front end that can hears them all together, so that all wait for the same time: `spent_s` of
    each.
    """
    blocks = [(by, block) for by, block in pushes if not isinstance(block, Asking)]
    heard = iter(_hear_together(blocks) if blocks else ())
    return [by.asked(block) if isinstance(block, Asking) else next(heard) for by, block in pushes]


def _hear_together(
    pushes: Sequence[tuple[Hearing, np.ndarray | None]],
) -> list[Arrival | Exception]:
    heard = [hearing.take(block) for hearing, block in pushes]
    front_end = pushes[0][0].front_end
    started = time.perf_counter()
    if isinstance(front_end, HearsTogether):
        results = front_end.hear(heard)
    else:
        results = [_hear_alone(each) for each in heard]
    spent_s = time.perf_counter() - started
    return [
        units
        if isinstance(units, Exception)
        else Arrival(hearing.ask(units, each.now_s), each.now_s, spent_s)
        for (hearing, _), each, units in zip(pushes, heard, results, strict=True)
    ]


def _hear_alone(heard: Heard[Ear]) -> list[Unit] | Exception:
    try:
        if heard.block is None:
            return heard.ear.finish(heard.now_s)
        return heard.ear.push(heard.block, heard.now_s)
    except Exception as error:
        return error


@dataclass
class Replay:
    """What a model made of a source, kept when it is first taken in, for further policies."""

    steps: list[Arrival] = field(default_factory=list)
    complete: bool = False  # whether the source was taken in to its end
    # Front end, its conditions, question, files. With another one it is made anew.
    made_by: tuple[object, ...] = ()


@dataclass
class MediaUnits:
    """Units of a source as it is taken in; iterate once."""

    model: StreamingCausalLM
    blocks: Iterable[np.ndarray]  # what arrives together, as the front end takes it
    rate: int  # of the blocks, in samples or frames per second
    question: str = ""  # text that is read before each turn
    ask_at_s: float | None = None  # or at this time
    # Whether the stages of a front end that has any overlap, as threads that read ahead.
    overlaps: bool = False
    # Filled at first; a complete one replaces taking the source in again, with the times that
    # were measured then.
    replay: Replay | None = None
    tells_turns: bool = False  # whether its stream has events of where turns begin and end in it
    received_s: float = 0.0  # seconds of the source that have arrived
    spent_s: float = 0.0  # time that the front end spent on the last block

    @property
    def kind(self) -> str:
        """Of the payload, as the log has it."""
        kind: str = self.model.front_end.kind
        return kind

    @property
    def opening(self) -> list[int]:
        """The question, where it stands in the prompt: to be asked before the units come."""
        return [] if self.ask_at_s is not None else opening_question(self.model, self.question)

    def __iter__(self) -> Iterator[list[Unit]]:
        replay = self.replay or Replay()
        kept = replay.steps if replay.complete else self._take_in(replay)
        for units, self.received_s, self.spent_s in kept:
            yield units

    def _take_in(self, replay: Replay) -> Iterator[Arrival]:
        replay.steps.clear()
        hearing = Hearing(self.model, self.rate, self.question, ask_at_s=self.ask_at_s)
        blocks: Iterator[np.ndarray | None] = itertools.chain(self.blocks, [None])
        stages = hearing.stages if self.overlaps else None
        arrivals = map(hearing.push, blocks) if stages is None else _staged(hearing, stages, blocks)
        for arrival in arrivals:
            if self.replay is not None:
                replay.steps.append(arrival)
            yield arrival
        replay.complete = True


class _Item(NamedTuple):
    """What arrived together, on its way through stages."""

    value: Any
    now_s: float
    spent_s: float = 0.0  # in stages, not counting where it waited for them


def _staged(
    hearing: Hearing, stages: Sequence[Stage], blocks: Iterable[np.ndarray | None]
) -> Iterator[Arrival]:
    """What `Hearing.push` gives for each block, of stages that overlap."""
    items = (_Item(heard, heard.now_s) for heard in map(hearing.take, blocks))
    timed = [Stage(stage.name, partial(_timed, stage.work)) for stage in stages]
    for units, now_s, spent_s in Pipeline(timed).run(items):
        yield Arrival(hearing.ask(units, now_s), now_s, spent_s)


def _timed(work: Callable[[Any], Any], item: _Item) -> _Item:
    started = time.perf_counter()
    value = work(item.value)
    return _Item(value, item.now_s, item.spent_s + time.perf_counter() - started)


def open_media(
    model: StreamingCausalLM,
    files: Sequence[str],
    question: str = "",
    replay: Replay | None = None,
) -> MediaUnits:
    """Takes files, joined to one source, in as if they were live, a unit at a time.

    ValueError if a file cannot be read, or the model has no front end.

    Args:
        question: text that is read before each turn.
        replay: of an earlier time, or to be filled.
    """
    front_end = model.front_end
    if front_end is None:
        raise ValueError(f"the model has no front end, and cannot take {files[0]}")
    made_by = (front_end, str(front_end.conditions), question, tuple(files))
    if replay is not None and replay.made_by != made_by:
        replay.made_by, replay.complete = made_by, False
    if replay is not None and replay.complete:
        return MediaUnits(model, (), 1, question, replay=replay)
    rate, blocks = front_end.read(files)
    return MediaUnits(model, blocks, rate, question, replay=replay)
