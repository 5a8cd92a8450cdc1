"""The engine: who takes part in a step, queues, limits, what is done to one stream alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import pytest
from tests.laws import streams
from tests.laws.streams import Recorder

from proactivellm.core.unit import Unit
from proactivellm.policy.fixed import Offline, WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.events import End, Ending, Event, Read, Write
from proactivellm.session.limits import EngineFull, Limits, QueueFull
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.state import SessionState

Load = Callable[..., Recorder]


@pytest.fixture
def load(load_endless: Load) -> Load:
    """Models that decide at every token; their targets are cut after 12."""
    return partial(load_endless, boundary="token")


@pytest.fixture
def model(load: Load) -> Recorder:
    return load()


def source(model: Recorder, count: int, seed: int = 1, final: bool = True) -> list[Unit]:
    return streams.as_units(streams.random_units(count, len(model.tokenizer), seed), final)


def alone(model: Recorder, units: list[Unit], spec: str = "wait-k:2") -> SessionState:
    return streams.feed(Session(model, parse_policy(spec), Sampling()), units, None).state


def drain(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while (new := engine.step()) is not None:
        events += new
    return events


def opened(engine: Engine, jobs: Iterable[list[Unit]]) -> list[int]:
    lanes = []
    for units in jobs:
        lanes.append(engine.open())
        engine.push(lanes[-1], units)
    return lanes


class TestSteps:
    def test_a_step_carries_every_lane_that_has_something_to_do(self, model: Recorder) -> None:
        """As many forwards as the longest stream takes alone."""
        jobs = [source(model, count, seed=count) for count in (3, 9, 6)]
        expected = [alone(model, units) for units in jobs]
        engine = Engine(model, WaitK(k=2), Limits(streams=3), Sampling())
        lanes = opened(engine, jobs)
        events = drain(engine)
        assert engine.forwards == max(state.forwards for state in expected)
        assert engine.tokens == sum(state.tokens for state in expected)
        for lane, state in zip(lanes, expected, strict=True):
            assert engine.state(lane).forwards == state.forwards
            mine = [event for event in events if event.lane == lane]
            writes = [event for event in mine if isinstance(event, Write)]
            tokens = [write.token_id for write in writes if write.token_id is not None]
            assert tokens == state.target[state.num_head :] and len(tokens) == 12
            assert "".join(write.text for write in writes) == state.detokenizer.text
            assert mine[-1] == End(lane=lane, how=Ending.LENGTH_LIMIT)
            assert sum(isinstance(event, End) for event in mine) == 1

    def test_every_unit_is_told_once_before_what_is_written_because_of_it(
        self, model: Recorder
    ) -> None:
        units = source(model, 7)
        engine = Engine(model, WaitK(k=2), Limits(streams=1), Sampling())
        opened(engine, [[*units[:-1], replace(units[-1], final=False), Unit.end()]])
        read = 0
        for event in drain(engine):
            if isinstance(event, Read):
                read += 1
                assert (event.units_read, event.unit.token_ids) == (read, units[read - 1].token_ids)
            elif isinstance(event, Write) and event.token_id is not None:
                assert event.units_read == read and event.reason is not None
                assert event.source_finished == (event.reason.text == "source finished")
        assert read == 7

    def test_a_lane_that_waits_is_left_out(self, model: Recorder) -> None:
        engine = Engine(model, WaitK(k=3), Limits(streams=3), Sampling())
        waits, reads, empty = opened(
            engine, [source(model, 3, final=False)[:2], source(model, 5), []]
        )
        events = drain(engine)
        assert {event.lane for event in events if isinstance(event, Write)} == {reads}
        assert engine.state(waits).units_read == 2 and not engine.state(waits).delays
        assert engine.state(empty).forwards == 0 and engine.step() is None
        engine.push(waits, source(model, 3)[2:])
        assert {event.lane for event in drain(engine)} == {waits}

    def test_steps_are_bounded_and_take_turns(self, model: Recorder) -> None:
        jobs = [source(model, 6, seed=seed) for seed in range(4)]
        expected = [alone(model, units).target for units in jobs]
        engine = Engine(model, WaitK(k=2), Limits(streams=4, step_tokens=2), Sampling())
        lanes = opened(engine, jobs)
        since = dict.fromkeys(lanes, 0)
        forwards = [0] * 4
        while engine.step() is not None:
            for lane in lanes:
                state = engine.state(lane)
                since[lane] = (
                    0 if state.forwards > forwards[lane] or state.finished else since[lane] + 1
                )
                forwards[lane] = state.forwards
            assert max(since.values()) < len(lanes), "nobody waits longer than all others take"
        assert [engine.state(lane).target for lane in lanes] == expected
        assert engine.forwards > 2 * max(forwards)

    def test_a_long_source_is_read_in_chunks(self, model: Recorder) -> None:
        units = source(model, 20)
        longest = max(len(unit.token_ids) for unit in units)
        expected = alone(model, units, "offline")
        limits = Limits(step_tokens=7)
        engine = Engine(model, Offline(), limits, Sampling())
        (lane,) = opened(engine, [units])
        assert longest < 7
        before = 0
        head = len(model.prompt.source_head) + len(model.prompt.target_head)
        while engine.step() is not None:
            tokens = engine.state(lane).tokens
            assert tokens - before <= 7 + head, "the prompt comes on top"
            before = tokens
        state = engine.state(lane)
        assert state.target == expected.target and state.tokens == expected.tokens
        assert state.forwards > expected.forwards + 4

    def test_streams_of_one_engine_may_differ_in_policy_and_sampling(self, model: Recorder) -> None:
        units = source(model, 6)
        sampled = Sampling(temperature=1.5, seed=5)
        cases = [
            ("wait-k:1", None),
            ("offline", None),
            ("attention:0.3", None),
            ("wait-k:1", sampled),
        ]
        engine = Engine(model, WaitK(k=1), Limits(streams=4), Sampling())
        for spec, sampling in cases:
            policy = None if spec == "wait-k:1" else parse_policy(spec)
            engine.push(engine.open(sampling, policy), units)
        drain(engine)
        states = [engine.state(lane) for lane in range(4)]
        for state, (spec, sampling) in zip(states, cases, strict=True):
            session = Session(model, parse_policy(spec), sampling or Sampling())
            expected = streams.feed(session, units, None).state
            assert (state.target, state.delays) == (expected.target, expected.delays)
        assert len({tuple(state.delays) for state in states[:3]}) == 3
        assert states[0].delays == states[3].delays and states[0].target != states[3].target


class TestQueues:
    def test_units_beyond_the_queue_wait_outside(self, model: Recorder) -> None:
        engine = Engine(model, WaitK(k=1), Limits(pending=2), Sampling())
        lane, units = engine.open(), source(model, 6)
        pushed, refused = 0, 0
        while not engine.state(lane).finished:
            before = len(engine.state(lane).pending)
            try:
                engine.push(lane, units[pushed:])
            except QueueFull as full:
                refused += 1
                assert str(full) == "2 units of lane 0 wait to be read: push after a step"
                assert len(engine.state(lane).pending) == 2
            pushed += len(engine.state(lane).pending) - before
            assert engine.step() is not None, "what is in the queue is looked at"
        assert refused > 2 and pushed == 6
        assert engine.state(lane).target == alone(model, units, "wait-k:1").target

    def test_nothing_follows_the_final_unit(self, model: Recorder) -> None:
        engine = Engine(model, WaitK(k=1), sampling=Sampling())
        lane, units = engine.open(), source(model, 3)
        with pytest.raises(ValueError, match="the source is closed"):
            engine.push(lane, [*units, units[0]])
        assert not engine.state(lane).pending, "all units of a call or none"
        engine.push(lane, units)
        with pytest.raises(ValueError, match="the source is closed"):
            engine.push(lane, units[:1])
        drain(engine)
        assert engine.state(lane).target == alone(model, units, "wait-k:1").target

    @pytest.mark.parametrize(
        "field", ["streams", "step_tokens", "pending", "thought_tokens", "depth"]
    )
    def test_limits_are_at_least_one(self, field: str) -> None:
        with pytest.raises(ValueError, match=f"{field}=0: give at least 1"):
            Limits(**{field: 0})

    def test_a_full_engine_says_so(self, model: Recorder) -> None:
        engine = Engine(model, Offline(), Limits(streams=1), Sampling())
        assert engine.has_room and engine.open() == 0 and not engine.has_room
        with pytest.raises(EngineFull, match="all 1 lanes are in use"):
            engine.open()
        engine.release(0)
        for method in (engine.release, engine.cancel, engine.rollback, engine.snapshot):
            with pytest.raises(RuntimeError, match="no stream is open in lane 0"):
                method(0)


class TestRollback:
    @pytest.mark.parametrize(
        "spec",
        ["wait-k:2", "offline", "entropy:4.7", "local-agreement:n=2,draft=4", "hold-n:n=1,draft=3"],
    )
    def test_at_any_step_a_stream_goes_on_as_if_nothing_was(
        self, model: Recorder, spec: str
    ) -> None:
        units = [*source(model, 5, final=False), Unit.end()]
        expected = alone(model, units, spec)
        drafting = 0
        for step in range(0, expected.forwards + 1, 2 if expected.forwards < 30 else 5):
            engine = Engine(model, parse_policy(spec), sampling=Sampling())
            (lane,) = opened(engine, [units])
            for _ in range(step):
                engine.step()
            state = engine.state(lane)
            drafting += bool(state.draft)
            written, read = state.num_written, state.units_read
            unread = engine.rollback(lane)
            assert (state.num_written, state.units_read) == (written, read)
            assert (
                not state.pending
                and not state.draft
                and unread == units[len(units) - len(unread) :]
            )
            drain(engine)
            assert state.units_read == read, "there is nothing to read"
            engine.push(lane, unread)
            drain(engine)
            assert (state.target, state.delays) == (expected.target, expected.delays)
        assert drafting > 0 or not spec.startswith(("local", "hold"))

    def test_another_source_may_follow(self, model: Recorder) -> None:
        """Barge-in: what was not read never was."""
        units, other = source(model, 6), source(model, 4, seed=7)
        engine = Engine(model, WaitK(k=2), sampling=Sampling())
        (lane,) = opened(engine, [units])
        for _ in range(3):
            engine.step()
        read = engine.state(lane).units_read
        assert engine.rollback(lane) == units[read:] and 0 < read < 6
        engine.push(lane, other)
        drain(engine)
        assert engine.state(lane).target == alone(model, [*units[:read], *other]).target


class TestCancel:
    def test_it_ends_after_the_last_token_and_its_text_stays(self, model: Recorder) -> None:
        units = source(model, 6)
        expected = alone(model, units)
        engine = Engine(model, WaitK(k=2), Limits(streams=2), Sampling())
        lane, other = opened(engine, [units, units])
        for _ in range(5):
            engine.step()
        state = engine.state(lane)
        written = list(state.target)
        assert len(written) > state.num_head + 2
        engine.cancel(lane)
        assert state.finished and state.cancelled and not state.truncated and state.error is None
        assert {write.lane for write in drain(engine)} == {other}
        assert state.target == written == expected.target[: len(written)]
        assert expected.detokenizer.text.startswith(state.detokenizer.text) and state.delays
        with pytest.raises(ValueError, match="the source is closed"):
            engine.push(lane, units)
        assert engine.state(other).target == expected.target
        engine.cancel(other)
        assert not engine.state(other).cancelled, "it had ended by itself"

    def test_a_draft_is_not_written(self, model: Recorder) -> None:
        engine = Engine(model, parse_policy("local-agreement:n=2,draft=8"), sampling=Sampling())
        (lane,) = opened(engine, [source(model, 6)])
        while len(engine.state(lane).draft) < 4:
            engine.step()
        state = engine.state(lane)
        written = state.num_written
        engine.cancel(lane)
        assert state.num_written == written and not state.draft
        assert engine.step() is None


class TestSnapshots:
    def test_they_share_nothing_with_the_stream(self, model: Recorder) -> None:
        units = source(model, 6)
        expected = alone(model, units)
        engine = Engine(model, WaitK(k=2), Limits(streams=2), Sampling())
        (lane,) = opened(engine, [units])
        engine.step()
        snapshot = engine.snapshot(lane)
        drain(engine)
        engine.release(lane)
        opened(engine, [source(model, 9, seed=4)])
        engine.step()
        again = engine.open()
        for _ in range(2):
            engine.restore(again, snapshot)
            drain(engine)
            assert engine.state(again).target == expected.target

    def test_one_of_another_model_is_refused(self, model: Recorder, load: Load) -> None:
        engine = Engine(model, WaitK(k=2), sampling=Sampling())
        (lane,) = opened(engine, [source(model, 3)])
        engine.step()
        other = load("gemma3_text")
        wider = Engine(other, WaitK(k=2), sampling=Sampling())
        with pytest.raises(ValueError, match="the snapshot has 2 layers, the model 3"):
            wider.restore(wider.open(), engine.snapshot(lane))

    def test_a_released_lane_leaves_nothing_behind(self, model: Recorder) -> None:
        engine = Engine(model, WaitK(k=2), Limits(streams=2), Sampling())
        lanes = opened(engine, [source(model, 6), source(model, 9, seed=2)])
        engine.step()
        engine.release(lanes[1])
        assert engine.cache.pages[lanes[1]] == [] and engine.has_room
        again = engine.open()
        assert again == lanes[1] and engine.state(again).forwards == 0
        engine.push(again, source(model, 3, seed=3))
        drain(engine)
        assert engine.state(again).target == alone(model, source(model, 3, seed=3)).target
        for lane in lanes:
            engine.release(lane)
        assert engine.cache.pool.num_free == engine.cache.pool.num_pages


def test_a_stream_beyond_the_positions_of_its_model_ends_alone(load: Load) -> None:
    model = load("gpt2")
    jobs = [source(model, count, seed=count) for count in (5, 80, 7)]
    expected = [alone(model, jobs[0]), alone(model, jobs[2])]
    engine = Engine(model, WaitK(k=2), Limits(streams=3), Sampling())
    first, long, last = opened(engine, jobs)
    events = drain(engine)
    state = engine.state(long)
    assert state.finished and state.error is not None
    assert "has reached position" in state.error and "'gpt2' has 64 of them" in state.error
    end = [event for event in events if event.lane == long][-1]
    assert end == End(lane=long, how=Ending.ERROR, error=state.error)
    for lane, reference in zip((first, last), expected, strict=True):
        assert engine.state(lane).error is None
        assert engine.state(lane).target == reference.target
