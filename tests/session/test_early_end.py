"""Targets that end before their source does: who decides, what becomes of the rest, the law."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import END, TOLERANCE, Recorder, gap
from tests.models import save_tiny

from proactivellm.core.unit import Unit
from proactivellm.evaluation.calibrate import statistic_quantiles
from proactivellm.metrics.latency import read_coverage
from proactivellm.policy.base import Policy
from proactivellm.policy.endogenous import Entropy
from proactivellm.policy.evidence import Seen
from proactivellm.policy.fixed import Fixed, Offline, WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.events import End, Ending
from proactivellm.session.limits import Limits
from proactivellm.session.session import Session
from proactivellm.stream import Job, run_streams, stream_units

NUM_UNITS = 9
TEXT = "The window"  # two words of more than one token each


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture
def model(folder: Path) -> Recorder:
    """Always writes TEXT, in the first two lanes."""
    model = streams.load(folder, early_end=True)
    target = [*model.tokenizer.encode(TEXT, add_special_tokens=False), END]
    model.forced = {0: target, 1: target}
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = len(target)
    return model


def source(model: Recorder, count: int = NUM_UNITS) -> list[list[int]]:
    return streams.random_units(count, len(model.tokenizer), seed=1)


def words(model: Recorder) -> list[int]:
    """The word of each token of the target, from 0; its end counts as one."""
    starts = [model.word_starts[token] for token in model.forced[0][1:]]
    return [0, *(sum(starts[: i + 1]) for i in range(len(starts)))]


SCHEDULES = [
    (WaitK(k=2), (2, 3, 4)),
    (WaitK(k=8), (8, 9, 9)),
    (Fixed(trace=(2, 3, 6)), (2, 3, 6)),
    (Fixed(trace=(2, 3)), (2, 3, 9)),  # a trace that does not name the end leaves it to the source
    (Offline(), (9, 9, 9)),
]


@pytest.mark.parametrize("size", [1, 3, None])
@pytest.mark.parametrize(("policy", "g"), SCHEDULES, ids=lambda v: getattr(v, "spec", None))
def test_the_policy_decides_about_the_end_as_about_a_word_and_the_law_holds(
    model: Recorder, policy: Policy, g: tuple[int, ...], size: int | None
) -> None:
    units = source(model)
    session = streams.feed(Session(model, policy), streams.as_units(units), size)
    schedule = [g[word] for word in words(model)]
    assert len(set(words(model))) == 3 < len(schedule)
    assert session.state.delays == schedule
    assert session.state.finished and session.text == TEXT
    assert not session.state.truncated and not session.state.pending
    assert session.state.units_read == g[-1]
    target = model.forced[0]
    sample = streams.sample_of(model.prompt, units, target)
    assert (
        gap(model.recorded(len(target)), streams.masked_logits(model, sample, [schedule])[0])
        <= TOLERANCE
    )


def test_without_the_setting_the_end_waits_for_the_source(folder: Path) -> None:
    model = streams.load(folder)
    model.forced = {0: [END] * 40}  # wanted from the first probe on
    model.model.generation_config.max_new_tokens = 3
    state = streams.feed(Session(model, WaitK(k=2)), streams.as_units(source(model)), 1).state
    assert state.finished and state.units_read == NUM_UNITS
    assert END not in state.target[state.num_head : -1]


def test_an_empty_answer(model: Recorder) -> None:
    model.forced = {0: [END]}
    session = streams.feed(Session(model, WaitK(k=4)), streams.as_units(source(model)), 1)
    assert session.state.finished and session.text == "" and session.state.delays == [4]


@pytest.mark.parametrize(
    ("spec", "g"),
    [
        (
            "local-agreement:n=2,draft=8,min_lag=-5",
            (2, 2, 2),
        ),  # the second draft agrees, end and all
        ("local-agreement:n=2,draft=8", (2, 2, 3)),  # min_lag = 1 holds for the end, as word 3, too
        ("hold-n:n=0,draft=8", (1, 2, 3)),
        ("hold-n:n=1,draft=8,min_lag=-5", (1, 1, 9)),  # the end is the token held back
        ("hold-n:n=1,draft=8,min_lag=-5,max_lag=3", (1, 1, 5)),  # ... until it is overdue
    ],
)
def test_drafts_are_trusted_with_their_end(model: Recorder, spec: str, g: tuple[int, ...]) -> None:
    policy = parse_policy(spec)
    state = streams.feed(Session(model, policy), streams.as_units(source(model)), 1).state
    assert state.delays == [g[word] for word in words(model)]
    assert state.finished and state.units_read == g[-1]


def test_what_is_pushed_after_the_end_is_dropped(model: Recorder) -> None:
    session = Session(model, WaitK(k=1))
    units = streams.as_units(source(model))
    assert list(session.advance(units[:4]))[-1] == End(lane=0, how=Ending.END_TOKEN)
    forwards = session.state.forwards
    assert session.push(units[4:7]) == [] and not session.state.pending
    assert session.close() == [] == session.close()
    assert session.state.forwards == forwards and session.state.units_read == 3
    with pytest.raises(ValueError, match="the source is closed"):
        session.push(units[7])


def test_a_short_queue_does_not_overflow_after_the_end(model: Recorder) -> None:
    engine = Engine(model, WaitK(k=1), Limits(pending=3))
    lane = engine.open()
    units = streams.as_units(source(model))
    engine.push(lane, units[:3])
    while engine.step() is not None:
        pass
    assert engine.state(lane).finished
    engine.push(lane, units[3:])
    assert engine.state(lane).closed and not engine.state(lane).pending


def test_recorded_sources_are_as_long_as_they_are(model: Recorder) -> None:
    jobs = [
        Job(index=i, source=" ".join(["the"] * length), task="qa", answers=("The window", "x"))
        for i, length in enumerate((9, 12, 5, 3))  # more than there are lanes
    ]
    instances = list(run_streams(model, WaitK(k=1), jobs, limits=Limits(streams=2)))
    by_index = {instance.index: instance for instance in instances}
    assert [by_index[i].source_length for i in range(4)] == [9, 12, 5, 3]
    for instance in instances:
        assert instance.prediction == TEXT and instance.token_delays[-1] == 3
        assert instance.task == "qa" and instance.answers == ["The window", "x"]
    delays = by_index[1].token_delays
    assert (
        read_coverage(delays, 12) == pytest.approx(sum(delays) / len(delays) / 12)
        and delays[-1] < 12
    )
    assert by_index[0].source_ms == pytest.approx(9 * 400)


def test_a_live_source_is_read_no_further(model: Recorder) -> None:
    asked: list[int] = []

    def arrivals() -> Iterator[list[Unit]]:
        for i, unit in enumerate(streams.as_units(source(model, 20), final=False)):
            asked.append(i)
            yield [unit, unit] if i == 2 else [unit]

    stream = stream_units(model, WaitK(k=1), arrivals())
    events = []
    while True:
        try:
            events.append(next(stream))
        except StopIteration as stop:
            instance = stop.value
            break
    assert asked == [0, 1, 2]
    assert instance.token_delays[-1] == 3 and instance.source_length == 4  # all that had arrived
    assert "".join(event.text for event in events if event.kind == "WRITE") == TEXT


def test_thresholds_are_measured_over_all_reading(model: Recorder) -> None:
    """Along wait-3 such a target would end after a few units, and nothing be known of the rest."""
    seen: list[int] = []

    class Noting(Entropy):
        def statistic(self, shown: Seen) -> torch.Tensor:
            seen.extend(shown.units_read_B.tolist())
            return super().statistic(shown)

    job = Job(index=0, source=" ".join(["the"] * 8))
    statistic_quantiles(model, [job], Noting(threshold=1.0), (0.5,), num_lanes=1)
    assert seen == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("spec", ["wait-k:1", "confidence:0.001,min_lag=1,max_lag=1"])
def test_a_source_not_finished_is_read_when_the_model_would_end(folder: Path, spec: str) -> None:
    model = streams.load(folder)  # early_end is False
    target = [*model.tokenizer.encode(TEXT, add_special_tokens=False), END]
    model.forced = {0: target}
    units = source(model)
    session = streams.feed(Session(model, parse_policy(spec)), streams.as_units(units), 1)
    assert session.text == TEXT  # nothing is made up in place of the end
    assert session.state.finished and session.state.units_read == NUM_UNITS
    assert session.state.forwards <= NUM_UNITS + len(target) + 1
