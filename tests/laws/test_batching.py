"""A stream is itself: whatever runs beside it, however its source is pushed, wherever it is cut
and continued, and whatever comes after what it has read."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import TOLERANCE, Recorder, gap

from proactivellm.core.unit import Unit
from proactivellm.policy.base import Policy
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.state import SessionState

Folder = Callable[..., Path]
SPECS = (
    "wait-k:2",
    "offline",
    "entropy:threshold=4.7,max_lag=6",
    "attention:threshold=0.2",
    "local-agreement:n=2,draft=4,max_lag=5",
    "hold-n:n=1,draft=4",
)
MODELS: tuple[tuple[str, dict[str, Any]], ...] = (  # each policy meets two of them, in turn
    ("qwen3", {}),
    ("gemma3_text", {"layout": "interleaved", "phi": 3}),
    ("mistral", {"phi": 6, "boundary": "token"}),
    ("qwen2", {"layout": "reencoded"}),
)
SAMPLINGS = (
    Sampling(),
    Sampling(temperature=0.8, top_p=0.9, seed=3),
    Sampling(temperature=1.2, top_k=20, repetition_penalty=1.3, seed=4),
    Sampling(repetition_penalty=1.5),
)


@dataclass(frozen=True)
class Outcome:
    """All that a finished stream has to show."""

    target: list[int]
    delays: list[int]
    text: str
    words: int
    truncated: bool

    @classmethod
    def of(cls, state: SessionState) -> "Outcome":
        assert state.finished
        return cls(
            list(state.target),
            list(state.delays),
            state.detokenizer.text,
            state.words,
            state.truncated,
        )


@dataclass
class Stream:
    units: list[Unit]
    sampling: Sampling
    pushed: int = 0


def make_units(model: Recorder, count: int, seed: int) -> list[Unit]:
    """An open-ended source for odd seeds, one whose last unit is final for even ones."""
    source = streams.random_units(count, len(model.tokenizer), seed)
    if seed % 2 or not count:
        return [*streams.as_units(source, final=False), Unit.end()]
    return streams.as_units(source)


def alone(
    model: Recorder, policy: Policy, units: Sequence[Unit], sampling: Sampling, size: int | None = 1
) -> Outcome:
    model.logits = {}
    return Outcome.of(streams.feed(Session(model, policy, sampling), units, size).state)


@pytest.mark.parametrize(
    ("spec", "family", "settings"),
    [(spec, *MODELS[(i + j) % len(MODELS)]) for i, spec in enumerate(SPECS) for j in (0, 1)],
    ids=str,
)
def test_streams_that_come_and_go_in_a_batch_are_as_alone(
    folder_of: Folder, spec: str, family: str, settings: dict[str, Any]
) -> None:
    model = streams.load(folder_of(family, "word_piece"), **settings)
    policy = parse_policy(spec)
    lengths = (5, 1, 9, 0, 6, 3)
    jobs = [
        Stream(make_units(model, length, seed), SAMPLINGS[seed % len(SAMPLINGS)])
        for seed, length in enumerate(lengths)
    ]
    expected, logits = [], []
    for job in jobs:
        expected.append(alone(model, policy, job.units, job.sampling))
        logits.append(model.recorded(len(expected[-1].delays)) if expected[-1].delays else None)
    model.logits = {}
    engine = Engine(model, policy, Limits(streams=3))
    running: dict[int, int] = {}
    waiting = list(range(len(jobs)))
    rng = random.Random(7)
    most, num_finished = 0, 0
    while waiting or running:
        if waiting and len(running) < 3 and rng.random() < 0.5:
            index = waiting.pop(0)
            running[engine.open(jobs[index].sampling)] = index
        for lane, index in running.items():
            job = jobs[index]
            count = rng.choice((0, 0, 1, 1, 4))
            engine.push(lane, job.units[job.pushed : job.pushed + count])
            job.pushed += count
        engine.step()
        most = max(most, len(running))
        for lane, index in list(running.items()):
            if engine.state(lane).finished:
                assert Outcome.of(engine.state(lane)) == expected[index]
                if logits[index] is not None:
                    actual = model.recorded(len(expected[index].delays), lane)
                    assert gap(actual, logits[index]) <= TOLERANCE
                engine.release(lane)
                del running[lane]
                num_finished += 1
    assert most == 3 and num_finished == len(jobs)


@pytest.mark.parametrize("spec", SPECS)
def test_decisions_do_not_depend_on_how_the_source_is_pushed(folder_of: Folder, spec: str) -> None:
    """Neither of a source whose last unit is final, nor of one that ends bare."""
    model = streams.load(folder_of("llama", "word_piece"))
    policy = parse_policy(spec)
    for sampling, seed in zip(SAMPLINGS, (12, 11), strict=False):
        units = make_units(model, 9, seed)
        expected = alone(model, policy, units, sampling, size=1)
        for size in (3, None):
            assert alone(model, policy, units, sampling, size) == expected, size


@pytest.mark.parametrize(
    ("spec", "sampling"), [(s, SAMPLINGS[1 + i % 2]) for i, s in enumerate(SPECS)], ids=str
)
def test_what_is_not_read_has_no_influence(
    folder_of: Folder, spec: str, sampling: Sampling
) -> None:
    """All is pushed at once; what was written before a unit was read does not depend on it."""
    model = streams.load(folder_of("qwen2", "word_piece"))
    size = len(model.tokenizer)
    policy = parse_policy(spec)
    source = streams.random_units(9, size, seed=21)
    whole = alone(model, policy, streams.as_units(source), sampling, None)
    for kept in (3, 8):
        other = [*source[:kept], *streams.random_units(4, size, seed=30 + kept)]
        for units in (
            streams.as_units(other),
            [*streams.as_units(source[:kept], final=False), Unit.end()],
        ):
            changed = alone(model, policy, units, sampling, None)
            early = [g for g in whole.delays if g <= kept]
            if units[-1].is_end:  # the marker is read after the last unit, and not counted as one
                early = [g for g in early if g < kept]
            head = len(model.prompt.target_head) + len(early)
            assert changed.delays[: len(early)] == early
            assert changed.target[:head] == whole.target[:head]


@pytest.mark.parametrize("spec", SPECS)
def test_a_stream_continues_from_a_snapshot_of_any_step(folder_of: Folder, spec: str) -> None:
    model = streams.load(folder_of("qwen3", "word_piece"))
    policy = parse_policy(spec)
    engine = Engine(model, policy, sampling=SAMPLINGS[1])
    lane = engine.open()
    engine.push(lane, make_units(model, 5, seed=41))
    snapshots = [engine.snapshot(lane)]
    while engine.step() is not None:
        snapshots.append(engine.snapshot(lane))
    expected = Outcome.of(engine.state(lane))
    assert len(snapshots) > len(expected.delays) > 3
    other = Engine(model, policy, Limits(streams=2), Sampling(temperature=2.0))
    lanes = other.open(), other.open()
    for used in lanes:
        other.push(used, make_units(model, 4, seed=43))
    half = len(snapshots) // 2
    pairs = list(zip(snapshots[: half + 1], snapshots[-half - 1 :], strict=True))
    for two in pairs[len(spec) % 2 :: 2]:  # every second one is enough, of odd steps or of even
        other.step()  # the lanes are not as new
        for used, snapshot in zip(lanes, two, strict=True):
            other.restore(used, snapshot)
        while other.step() is not None:
            pass
        assert [Outcome.of(other.state(used)) for used in lanes] == [expected, expected]


@pytest.mark.parametrize("spec", SPECS)
def test_clones_and_saved_sessions_continue_alike(
    folder_of: Folder, spec: str, tmp_path: Path
) -> None:
    model = streams.load(folder_of("qwen2", "word_piece"))
    policy, sampling = parse_policy(spec), SAMPLINGS[1]
    units = make_units(model, 5, seed=51)
    expected = alone(model, policy, units, sampling)
    for cut in (0, 3, len(units)):
        session = Session(model, policy, sampling)
        session.push(units[:cut])
        clone = session.clone()
        session.save(tmp_path / "session.pt")
        before = session.state.state_dict()
        streams.feed(clone, units[cut:], 1)
        assert session.state.state_dict() == before, "a clone shares nothing with its original"
        loaded = Session.load(tmp_path / "session.pt", model, policy)
        streams.feed(loaded, units[cut:], 2)
        streams.feed(session, units[cut:], None)
        for twin in (clone, loaded, session):
            assert Outcome.of(twin.state) == expected
            assert twin.text == expected.text


def test_units_not_read_yet_are_part_of_a_saved_session(folder_of: Folder, tmp_path: Path) -> None:
    model = streams.load(folder_of("llama", "word_piece"), boundary="token")
    policy = parse_policy("wait-k:2")
    features = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    engine = Engine(model, policy)
    lane = engine.open()
    units = make_units(model, 5, seed=60)
    engine.push(lane, [*units[:-1], Unit(features=features), units[-1]])
    engine.step()
    session = Session(model, policy)
    session._engine.restore(session._lane, engine.snapshot(lane))
    session.save(tmp_path / "s.pt")
    loaded = Session.load(tmp_path / "s.pt", model, policy)
    assert [unit.text for unit in loaded.state.pending] == [""] * 4
    assert torch.equal(loaded.state.pending[-2].features, features)
    while engine.step() is not None:
        pass
    list(loaded.advance([]))
    assert Outcome.of(loaded.state) == Outcome.of(engine.state(lane))


def test_files_that_hold_no_session_are_named(folder_of: Folder, tmp_path: Path) -> None:
    model = streams.load(folder_of("llama"))
    policy = parse_policy("offline")
    with pytest.raises(ValueError, match="no such file"):
        Session.load(tmp_path / "absent.pt", model, policy)
    (tmp_path / "text.pt").write_text("not a session")
    torch.save({"state": {}}, tmp_path / "other.pt")
    session = Session(model, policy)
    session.push(make_units(model, 2, seed=3))
    session.save(tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(data[: len(data) // 2])
    for name in ("text.pt", "other.pt", "half.pt"):
        with pytest.raises(ValueError, match=f"{name} holds no session of this model"):
            Session.load(tmp_path / name, model, policy)
    wider = streams.load(folder_of("gemma3_text"))
    with pytest.raises(ValueError, match="holds no session of this model"):
        Session.load(tmp_path / "whole.pt", wider, policy)
