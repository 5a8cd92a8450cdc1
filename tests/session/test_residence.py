"""Lanes in a cache that is too small for all: who makes way, who waits, and that all end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import TOLERANCE, Recorder, gap
from tests.models import save_tiny

from proactivellm.core.unit import Unit
from proactivellm.forward.cache import PAGE, ArrivalCache
from proactivellm.policy.fixed import Offline, WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.events import End, Ending, Event, Write
from proactivellm.session.limits import Limits
from proactivellm.session.residence import Residence
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.state import SessionState

BLOCK = 8  # entries: caches are multiples of it


def entries(count: int, value: float = 1.0) -> dict[str, Any]:
    """A lane of so many entries, as `ArrivalCache.snapshot` gives it: one layer."""
    keys = torch.full((count, 2, 3), value)
    kinds = torch.arange(3 * count).view(3, count)
    return {"keys": [keys], "values": [-keys], "kinds": kinds, "units": 1}


def resident(pages: int, **lanes: int) -> Residence:
    """A cache of so many pages, with lanes (`a` = 0, `b` = 1, ...) of so many, oldest first."""
    residence = Residence(ArrivalCache(1, 5, torch.device("cpu"), pages * PAGE))
    for name, held in lanes.items():
        residence.restore(lane(name), entries(held * PAGE, float(lane(name))))
    return residence


def lane(name: str) -> int:
    return "abcde".index(name)


def parked(residence: Residence) -> str:
    return "".join("abcde"[number] for number in residence.parked)


class TestWhoMakesWay:
    def make_room(
        self, residence: Residence, name: str, pages: int, idle: str = "", busy: str = ""
    ) -> bool:
        others = [lane(other) for other in "abcde" if other not in (name, *busy)]
        held = [other for other in others if residence.holds(other) or other in residence.parked]
        return residence.make_room(lane(name), pages * PAGE, [lane(i) for i in idle], held)

    def test_nobody_while_there_is_room(self) -> None:
        residence = resident(6, a=2, b=2)
        assert residence.fits(lane("a"), 4 * PAGE)
        assert not residence.fits(lane("c"), 1)
        assert not residence.holds(lane("c")) and parked(residence) == ""
        assert residence.fits(lane("a"), 4 * PAGE), "it has them already"

    def test_idle_lanes_first_then_the_youngest(self) -> None:
        residence = resident(6, a=1, b=2, c=2, d=1)
        assert self.make_room(residence, "b", 3, idle="a")
        assert parked(residence) == "a"
        assert self.make_room(residence, "b", 4)
        assert parked(residence) == "ad", "the youngest that is not idle"
        assert self.make_room(residence, "b", 6)
        assert parked(residence) == "adc" and residence.cache.pool.num_free == 0

    def test_no_more_than_necessary(self) -> None:
        residence = resident(6, a=2, b=2, c=1, d=1)
        assert self.make_room(residence, "a", 3, idle="bc")
        assert parked(residence) == "b" and residence.cache.pool.num_free == 1

    def test_a_lane_that_is_not_in_the_cache_takes_from_idle_lanes_only(self) -> None:
        residence = resident(4, a=2, b=2)
        assert not self.make_room(residence, "e", 1)
        assert parked(residence) == "" and not residence.holds(lane("e"))
        assert self.make_room(residence, "e", 1, idle="a")
        assert parked(residence) == "a" and residence.holds(lane("e"))

    def test_lanes_of_the_running_step_stay(self) -> None:
        residence = resident(4, a=2, b=2)
        assert not self.make_room(residence, "b", 3, busy="a")
        assert parked(residence) == ""

    def test_who_came_back_is_the_youngest(self) -> None:
        residence = resident(4, a=2, b=1, c=1)
        assert self.make_room(residence, "b", 2)
        assert parked(residence) == "c"
        assert self.make_room(residence, "c", 1, idle="b")
        assert parked(residence) == "b"
        assert self.make_room(residence, "a", 4)
        assert parked(residence) == "bc", "who waits longest stands first"

    def test_who_is_too_large_alone_is_told_so(self) -> None:
        residence = resident(4, a=2, b=2)
        sizes = f"needs {4 * PAGE + 1} cache entries and the engine has {4 * PAGE}"
        message = f"{sizes}: give it more, or .* a window"
        with pytest.raises(RuntimeError, match=message):
            residence.make_room(lane("a"), 4 * PAGE + 1, [], [lane("b")])
        assert parked(residence) == "", "nobody makes way for nothing"

    def test_what_was_parked_comes_back_as_it_was(self) -> None:
        residence = resident(4, a=2, b=2)
        before = residence.snapshot(lane("a"))
        assert self.make_room(residence, "b", 3, idle="a")
        assert residence.cache.pages[lane("a")] == []
        for stage in ("parked", "back"):
            after = residence.snapshot(lane("a"))
            assert all(map(torch.equal, after["keys"], before["keys"])), stage
            assert all(map(torch.equal, after["values"], before["values"])), stage
            assert torch.equal(after["kinds"], before["kinds"]), stage
            residence.forget(lane("b"))
            assert self.make_room(residence, "a", 3)
        assert residence.cache.lengths[lane("a")] == 2 * PAGE

    def test_what_does_not_fit_is_parked_when_restored(self) -> None:
        residence = resident(3, a=2)
        residence.restore(lane("b"), entries(2 * PAGE, 7.0))
        assert parked(residence) == "b" and not residence.holds(lane("b"))
        assert residence.snapshot(lane("b"))["keys"][0].unique().tolist() == [7.0]
        assert self.make_room(residence, "b", 2, idle="a")
        assert residence.cache.snapshot(lane("b"))["keys"][0].unique().tolist() == [7.0]
        residence.forget(lane("a"))
        residence.forget(lane("b"))
        assert parked(residence) == "" and residence.cache.pool.num_free == 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("qwen3", tmp_path_factory.mktemp("qwen3"), "word_piece")


@pytest.fixture
def model(folder: Path) -> Recorder:
    """Targets are cut after 12 tokens."""
    model = streams.load(folder, boundary="token")
    assert model.model.generation_config is not None
    model.model.generation_config.eos_token_id = []
    return model


def source(model: Recorder, count: int, seed: int = 1, final: bool = True) -> list[Unit]:
    return streams.as_units(streams.random_units(count, len(model.tokenizer), seed), final)


def alone(model: Recorder, units: list[Unit], spec: str = "wait-k:2") -> SessionState:
    return streams.feed(Session(model, parse_policy(spec), Sampling()), units, None).state


def drain(engine: Engine) -> None:
    while engine.step() is not None:
        pass


@pytest.mark.parametrize("spec", ["wait-k:2", "offline", "local-agreement:n=2,draft=4"])
def test_many_streams_in_a_tiny_cache_all_end_as_alone(model: Recorder, spec: str) -> None:
    jobs = [source(model, 3 + seed % 6, seed) for seed in range(9)]
    expected, logits = [], []
    for units in jobs:
        expected.append(alone(model, units, spec))
        logits.append(model.recorded(len(expected[-1].delays)))
    largest = max(state.num_entries for state in expected)
    limits = Limits(streams=9, entries=(largest // PAGE + 2) * PAGE)
    engine = Engine(model, parse_policy(spec), limits, Sampling())
    for units in jobs:
        engine.push(engine.open(), units)
    most_parked = 0
    while engine.step() is not None:
        most_parked = max(most_parked, len(engine.residence.parked))
    assert most_parked > 3 or spec == "offline"
    for number, (state, each) in enumerate(zip(expected, logits, strict=True)):
        actual = engine.state(number)
        assert (actual.target, actual.delays) == (state.target, state.delays)
        assert (actual.forwards, actual.tokens) == (state.forwards, state.tokens)
        assert gap(model.recorded(len(state.delays), number), each) <= TOLERANCE


def test_a_stream_too_large_for_the_cache_fails_alone(model: Recorder) -> None:
    jobs = [source(model, count, seed=count) for count in (4, 40, 6)]
    expected = [alone(model, jobs[number]) for number in (0, 2)]
    engine = Engine(model, WaitK(k=2), Limits(streams=3, entries=6 * BLOCK), Sampling())
    for units in jobs:
        engine.push(engine.open(), units)
    events: list[Event] = []
    while (new := engine.step()) is not None:
        events += [event for event in new if event.lane == 1]
    failed = engine.state(1)
    assert failed.finished and failed.error is not None
    assert (
        "cache entries and the engine has 48: give it more, or the stream a window" in failed.error
    )
    assert events[-1] == End(lane=1, how=Ending.ERROR, error=failed.error)
    written = [event.token_id for event in events if isinstance(event, Write) and event.token_id]
    assert written == failed.target[failed.num_head :]
    for number, state in zip((0, 2), expected, strict=True):
        assert engine.state(number).error is None
        assert engine.state(number).target == state.target
    engine.release(1)
    lane = engine.open()
    engine.push(lane, jobs[0])
    drain(engine)
    assert engine.state(lane).target == expected[0].target, "the engine goes on"


def test_a_stream_waits_no_longer_for_one_that_has_nothing_to_do(model: Recorder) -> None:
    """It is enough to step until there is nothing to do: no lane is left behind."""
    first, second = source(model, 9), source(model, 7, seed=3)
    expected = [alone(model, units).target for units in (first, second)]
    engine = Engine(model, WaitK(k=2), Limits(streams=2, entries=5 * BLOCK), Sampling())
    a, b = engine.open(), engine.open()
    engine.push(a, first[:8])
    drain(engine)
    assert not engine.state(a).finished and len(engine.cache.pages[a]) > 2
    engine.push(b, second)
    engine.push(a, first[8:])
    drain(engine)
    assert [engine.state(each).target for each in (a, b)] == expected


def test_a_large_stream_is_not_overtaken_for_ever(model: Recorder) -> None:
    """Small ones keep coming, one by one; the one that waits for much room is served in time."""
    large = source(model, 16)
    expected = alone(model, large).target
    blocks = alone(model, large).num_entries // BLOCK + 1
    engine = Engine(model, WaitK(k=2), Limits(streams=4, entries=blocks * BLOCK), Sampling())
    waiting = engine.open()
    engine.push(waiting, large[:15])
    drain(engine)
    assert len(engine.cache.pages[waiting]) * PAGE >= (blocks - 1) * BLOCK, (
        "two small ones leave less than that"
    )
    served = 0
    for step in range(300):  # far more than it takes
        for lane in range(1, 4):
            if engine.states[lane] is not None and engine.state(lane).finished:
                engine.release(lane)
        while engine.has_room:
            engine.push(engine.open(), source(model, 2 + served % 4, seed=served))
            served += 1
        if step == 20:
            assert waiting in engine.residence.parked
            engine.push(waiting, large[15:])
        assert engine.step() is not None
        if engine.state(waiting).finished:
            break
    assert served > 5 and engine.state(waiting).target == expected
    assert step < 100


@pytest.mark.parametrize("where", ["parked", "copied"])
def test_a_draft_that_was_parked_may_be_taken_back(model: Recorder, where: str) -> None:
    """Nothing of the draft is left among the entries that return."""
    units, policy = source(model, 6), parse_policy("hold-n:n=1,draft=5")
    expected = alone(model, units, policy.spec)
    logits = model.recorded(len(expected.delays))
    engine = Engine(model, policy, Limits(streams=2, entries=6 * BLOCK), Sampling())
    lane, other = engine.open(), engine.open()
    engine.push(lane, units)
    while len(engine.state(lane).draft) < 3 or engine.state(lane).units_read < 3:
        engine.step()
    num_entries = engine.state(lane).num_entries
    assert engine.residence.make_room(other, 5 * BLOCK, [lane], [lane])
    assert engine.residence.parked[lane]["kinds"].shape[1] == num_entries
    engine.release(other)
    unread, written = engine.rollback(lane), engine.state(lane).num_written
    assert not engine.state(lane).draft and unread == units[len(units) - len(unread) :]
    assert engine.state(lane).num_entries < num_entries
    kept = engine.residence.parked[lane]
    assert {len(keys) for keys in kept["keys"]} == {engine.state(lane).num_entries}
    assert kept["kinds"].shape[1] == engine.state(lane).num_entries
    if where == "copied":
        snapshot = engine.snapshot(lane)
        engine = Engine(model, policy, Limits(streams=2), Sampling())
        engine.open()
        lane = engine.open()
        engine.restore(lane, snapshot)
    engine.push(lane, unread)
    drain(engine)
    assert engine.state(lane).target == expected.target
    assert engine.state(lane).delays == expected.delays
    actual = [model.logits[lane, t] for t in range(written, len(logits))]
    assert gap(torch.stack(actual), logits[written:]) <= TOLERANCE


def test_parked_lanes_are_released_and_cancelled_like_others(model: Recorder) -> None:
    engine = Engine(model, Offline(), Limits(streams=3, entries=4 * BLOCK), Sampling())
    lanes = [engine.open() for _ in range(3)]
    for number in lanes:
        engine.push(number, source(model, 9, seed=number, final=False))
        drain(engine)
    assert len(engine.residence.parked) == 2
    first, second = engine.residence.parked
    engine.release(first)
    engine.cancel(second)
    assert engine.state(second).cancelled and first not in engine.residence.parked
    engine.release(second)
    assert engine.residence.parked == {}
    again = engine.open()
    engine.push(again, source(model, 4))
    drain(engine)
    assert engine.state(again).target == alone(model, source(model, 4), "offline").target
