"""THE LAW ACROSS BATCHING: whatever runs beside a stream, and whatever is done to it in between, it
writes the same tokens as alone, from the same logits, and its log says the same.

Random schedules of opening, pushing, stepping, moving and copying between engines, rolling back,
cancelling and leaving; in engines whose cache is too small for their streams, whose steps are too
small for their lanes and whose queues are short; with and without a window.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from tests.families import OBEYING, save_random
from tests.laws import streams
from tests.laws.streams import TOLERANCE, Recorder, gap
from tests.laws.test_batching import SAMPLINGS, make_units
from tests.tokenizers import CORPUS
from torch import Tensor

from proactivellm.core.unit import Unit
from proactivellm.forward.cache import PAGE, ArrivalCache
from proactivellm.forward.graphs import StepOutput
from proactivellm.forward.lanes import LaneInput
from proactivellm.output.log import Instance
from proactivellm.policy.base import Policy
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.events import Write
from proactivellm.session.limits import Limits, QueueFull
from proactivellm.session.sampling import Sampling
from proactivellm.session.state import SessionState
from proactivellm.session.window import Window
from proactivellm.stream import Job as Source
from proactivellm.stream import run_streams

BLOCK = 8  # entries: caches are multiples of it, small enough that streams crowd each other out

Folder = Callable[..., Path]
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {"phi": 3, "boundary": "token"},
    "gemma3_text": {"layout": "interleaved"},  # sliding and full layers
    "falcon": {},  # does its attention by itself: the joint plan
}
JOBS = (  # policy, sampling, units: an odd number of them is followed by a bare end marker
    ("wait-k:2", 0, 9),
    ("attention:threshold=0.2", 0, 6),
    ("local-agreement:n=2,draft=4,max_lag=5", 1, 7),
    ("entropy:threshold=4.7,min_lag=1,max_lag=4", 2, 8),
    ("offline", 3, 8),
    ("hold-n:n=1,draft=4", 0, 5),
    ("wait-k:4", 1, 1),
    ("confidence:threshold=0.1,max_lag=6", 0, 0),
)
WINDOWS = (None, Window(source=14, target=8), Window(source=16, target=12, sinks=1))
EXAMPLES = 2  # per family, enough with these seeds for everything to happen that is wanted below
SEEDS = (0, 3, 4, 6)


@dataclass(frozen=True)
class Job:
    """What a stream is made of."""

    policy: Policy
    sampling: Sampling
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Outcome:
    """All that a stream has to show, in its state and by its writes."""

    target: list[int]
    delays: list[int]
    words: int
    truncated: bool
    units_read: int
    dropped: tuple[int, int]
    tokens: int
    text: str
    written: list[int | None]
    g: list[int]


@dataclass(eq=False)
class Stream:
    """A job on its way; its logits are those of the latest probe for each target token."""

    job: Job
    pushed: int = 0
    written: list[int | None] = field(default_factory=list)
    g: list[int] = field(default_factory=list)
    text: str = ""
    logits: dict[int, Tensor] = field(default_factory=dict)
    redrafted: bool = False

    def outcome(self, state: SessionState) -> Outcome:
        assert state.detokenizer.text == self.text
        return Outcome(
            target=list(state.target),
            delays=list(state.delays),
            words=state.words,
            truncated=state.truncated,
            units_read=state.units_read,
            dropped=(state.dropped_units, state.dropped_tokens),
            tokens=state.tokens,
            text=self.text,
            written=self.written,
            g=self.g,
        )


class Bounded(Recorder):
    """Sees every step: what it carries is bounded."""

    step_tokens = 0
    num_inputs = 0

    def step(
        self, cache: ArrivalCache, inputs: Sequence[LaneInput], attention: bool = False
    ) -> StepOutput | None:
        self.num_inputs = len(inputs)
        assert len(inputs) == 1 or sum(lane.size for lane in inputs) <= self.step_tokens
        return super().step(cache, inputs, attention)


class Place:
    """An engine, and whose its lanes are."""

    def __init__(self, model: Recorder, limits: Limits, window: Window | None) -> None:
        self.model = Bounded(model.model, model.tokenizer, model.settings)
        self.model.step_tokens = limits.step_tokens
        self.engine = Engine(self.model, parse_policy("wait-k:9"), limits, Sampling(), window)
        self.lanes: dict[int, Stream] = {}

    def open(self, stream: Stream) -> int:
        lane = self.engine.open(stream.job.sampling, stream.job.policy)
        self.lanes[lane] = stream
        return lane

    def push(self, lane: int, count: int) -> None:
        stream, state = self.lanes[lane], self.engine.state(lane)
        before = len(state.pending)
        try:
            self.engine.push(lane, stream.job.units[stream.pushed : stream.pushed + count])
        except QueueFull:
            assert len(state.pending) >= (self.engine.limits.pending or 99)
        stream.pushed += len(state.pending) - before

    def step(self) -> bool:
        self.model.logits = {}
        events = self.engine.step()
        for event in events or []:
            if isinstance(event, Write):
                stream = self.lanes[event.lane]
                stream.written.append(event.token_id)
                stream.g.append(event.units_read)
                stream.text += event.text
        for (lane, t), logits_V in self.model.logits.items():
            dropped = self.engine.state(lane).dropped_tokens
            self.lanes[lane].logits[dropped + t] = logits_V
        return events is not None

    def release(self, lane: int) -> Stream:
        self.engine.release(lane)
        return self.lanes.pop(lane)


@functools.cache
def job(vocabulary: Recorder, number: int) -> Job:
    spec, sampling, count = JOBS[number]
    if vocabulary.joint and spec.startswith("attention"):
        spec = "wait-k:3"  # weights of such a family cannot be seen
    units = make_units(vocabulary, count, seed=100 + count)
    return Job(parse_policy(spec), SAMPLINGS[sampling], tuple(units))


@functools.cache
def alone(model: Recorder, number: int, window: Window | None) -> tuple[Outcome, Stream, int]:
    """The outcome, the stream, and the pages it takes without a window."""
    place = Place(model, Limits(), window)
    stream = Stream(job(model, number))
    lane = place.open(stream)
    place.push(lane, 99)
    while place.step():
        pass
    state = place.engine.state(lane)
    assert state.finished and state.error is None
    return stream.outcome(state), stream, len(place.engine.cache.pages[lane])


OPERATIONS = {
    **{"open": 4, "push": 9, "step": 9, "rollback": 2},
    **{"move": 1, "copy": 1, "cancel": 0.5, "leave": 0.5},
}


@dataclass(frozen=True)
class Plan:
    """A random schedule."""

    order: Sequence[int]
    window: Window | None
    cramped: Limits
    operations: Sequence[tuple[str, int, int]]

    @classmethod
    def draw(cls, number: int, pages: int) -> Plan:
        """A schedule for a cramped engine: `pages` are what the largest stream needs."""
        rng = random.Random(number)
        names = rng.choices(list(OPERATIONS), list(OPERATIONS.values()), k=120)
        return cls(
            order=rng.sample(range(len(JOBS)), len(JOBS)),
            window=rng.choice(WINDOWS),
            cramped=Limits(
                streams=rng.randint(2, 4),
                entries=PAGE * pages + BLOCK * rng.randint(0, 1),
                step_tokens=rng.choice((1, 6, 2048)),
                pending=rng.choice((None, None, 2)),
            ),
            operations=[(name, rng.randrange(8), rng.randrange(4)) for name in names],
        )


class Theatre:
    """Plays a schedule in two engines: a cramped one, and one with room."""

    def __init__(self, model: Recorder, plan: Plan, seen: Counter[str]) -> None:
        self.model, self.plan, self.seen = model, plan, seen
        roomy = Limits(streams=3)
        self.places = [Place(model, limits, plan.window) for limits in (plan.cramped, roomy)]
        self.waiting = list(plan.order)
        self.numbers: dict[Stream, int] = {}

    def play(self) -> None:
        for name, chosen, count in self.plan.operations:
            present = self.present()
            if name == "open":
                self.open(self.places[chosen == 7])
            elif name == "step":
                for _ in range(1 + count):
                    self.step(self.places[chosen >= 6])
            elif present:
                place, lane = present[chosen % len(present)]
                getattr(self, name)(place, lane, count)
        while self.waiting or self.present():
            self.open(self.places[0])
            for place, lane in self.present():
                place.push(lane, 3)
            moved = [self.step(each) for each in self.places]
            assert any(moved) or not self.present(), "a deadlock"

    def present(self) -> list[tuple[Place, int]]:
        return [(place, lane) for place in self.places for lane in place.lanes]

    def open(self, place: Place) -> None:
        if self.waiting and place.engine.has_room:
            number = self.waiting.pop()
            stream = Stream(job(self.model, number))
            self.numbers[stream] = number
            place.open(stream)

    def step(self, place: Place) -> bool:
        moved = place.step()
        engine = place.engine
        self.seen["parked"] += len(engine.residence.parked)
        self.seen["left out of a step"] += len(engine.admission.active) > place.model.num_inputs
        held = [page for pages in engine.cache.pages for page in pages]
        assert (
            len(set(held)) == len(held) == engine.cache.pool.num_pages - engine.cache.pool.num_free
        )
        for lane in list(place.lanes):
            if engine.state(lane).finished:
                self.check(place, lane)
                place.release(lane)
                moved = True
        return moved

    def push(self, place: Place, lane: int, count: int) -> None:
        place.push(lane, count)

    def rollback(self, place: Place, lane: int, count: int) -> None:
        stream = place.lanes[lane]
        drafting = bool(place.engine.state(lane).draft)
        self.seen["rolled back in a draft"] += drafting
        stream.redrafted |= drafting
        units = place.engine.rollback(lane)
        stream.pushed -= len(units)
        assert stream.job.units[stream.pushed :][: len(units)] == tuple(units)
        if count % 2:  # else they come later
            place.push(lane, len(units))

    def move(self, place: Place, lane: int, count: int) -> None:
        if self.copy(place, lane, count):
            place.release(lane)

    def copy(self, place: Place, lane: int, count: int) -> bool:
        """Continue in another lane; where both go on, neither may notice."""
        other = self.places[count % 2]
        if not other.engine.has_room:
            return False
        stream = place.lanes[lane]
        twin = replace(stream, written=[*stream.written], g=[*stream.g], logits={**stream.logits})
        self.numbers[twin] = self.numbers[stream]
        self.seen["copied while parked"] += lane in place.engine.residence.parked
        snapshot = place.engine.snapshot(lane)
        other.engine.restore(other.open(twin), snapshot)
        self.seen["copied"] += 1
        return True

    def cancel(self, place: Place, lane: int, count: int) -> None:
        state = place.engine.state(lane)
        finished = state.finished  # an empty source, before a step looked at it
        place.engine.cancel(lane)
        assert state.finished and state.cancelled != finished and not state.pending
        stream = place.lanes[lane]
        expected, whole, _ = alone(self.model, self.numbers[stream], self.plan.window)
        assert expected.written[: len(stream.written)] == stream.written
        assert expected.g[: len(stream.g)] == stream.g
        assert expected.text.startswith(stream.text)
        assert state.detokenizer.text.startswith(stream.text)
        self.compare(stream, whole)
        self.seen["cancelled"] += 1
        self.seen["cancelled after a write"] += bool(stream.written)
        place.release(lane)

    def leave(self, place: Place, lane: int, count: int) -> None:
        if count == 0:
            place.release(lane)

    def check(self, place: Place, lane: int) -> None:
        stream, state = place.lanes[lane], place.engine.state(lane)
        assert state.error is None
        expected, whole, _ = alone(self.model, self.numbers[stream], self.plan.window)
        actual = stream.outcome(state)
        if stream.redrafted:  # what a rollback threw away was computed twice
            assert actual.tokens >= expected.tokens
            actual = replace(actual, tokens=expected.tokens)
        assert actual == expected
        self.compare(stream, whole)
        self.seen["finished"] += 1
        self.seen["dropped"] += state.dropped_units > 0 and state.dropped_tokens > 0

    def compare(self, stream: Stream, whole: Stream) -> None:
        written = sum(token is not None for token in stream.written)
        if written:
            actual, expected = (
                torch.stack([each.logits[t] for t in range(written)]) for each in (stream, whole)
            )
            assert gap(actual, expected) <= TOLERANCE


@pytest.fixture(scope="module")
def model_of(
    folder_of: Folder, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Recorder]:
    def make(family: str) -> Recorder:
        if family in OBEYING:
            folder = save_random(family, OBEYING[family], tmp_path_factory.mktemp(family))
        else:
            folder = folder_of(family, "word_piece")
        return streams.load(folder, **FAMILIES[family])

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_every_stream_is_as_alone(model_of: Callable[[str], Recorder], family: str) -> None:
    model = model_of(family)
    pages = max(alone(model, number, None)[2] for number in range(len(JOBS)))
    seen: Counter[str] = Counter()

    @seed(SEEDS[list(FAMILIES).index(family)])
    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(number=st.integers(0, 10**6))
    def law(number: int) -> None:
        Theatre(model, Plan.draw(number, pages), seen).play()

    law()
    for name in ("parked", "left out of a step", "copied", "dropped", "cancelled"):
        assert seen[name] > 0, f"no stream was {name}: {seen}"
    assert seen["finished"] > 4 * EXAMPLES


@pytest.mark.parametrize(
    ("spec", "window"),
    [(spec, WINDOWS[i % 2]) for i, (spec, _, _) in enumerate(JOBS) if spec != "wait-k:4"],
    ids=str,
)
def test_the_log_of_many_at_once_is_that_of_one_after_the_other(
    model_of: Callable[[str], Recorder], spec: str, window: Window | None
) -> None:
    """All of it, forwards included, but what a clock measured."""
    model = model_of("qwen3")
    lines = [*CORPUS[:2], "", "Der Hund", CORPUS[4]]
    sources = [Source(index=i, source=line, reference=line) for i, line in enumerate(lines)]
    logs: list[list[Instance]] = []
    for limits in (Limits(), Limits(streams=4, entries=13 * BLOCK, step_tokens=9)):
        limits = replace(limits, step_tokens=9)  # how much is read at once tells in `forwards`
        run = run_streams(model, parse_policy(spec), sources, limits=limits, window=window)
        logs.append(sorted(map(timeless, run), key=lambda instance: instance.index))
    assert logs[0] == logs[1] and len(logs[0]) == len(lines)
    assert sum(instance.dropped_units > 0 for instance in logs[0]) == (3 if window else 0)


def timeless(instance: Instance) -> Instance:
    elapsed = [0.0] * len(instance.elapsed)
    first_token_ms = None if instance.first_token_ms is None else 0.0
    return replace(instance, elapsed=elapsed, first_token_ms=first_token_ms)
