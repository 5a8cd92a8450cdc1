"""A step is a transaction: whatever goes wrong with one stream, at any step and in any place, the
others write exactly what they write alone, and the books of the engine agree after every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.families import OBEYING, save_random
from tests.laws import streams
from tests.models import save_tiny
from torch import Tensor

from proactivellm.core.unit import Unit
from proactivellm.forward.cache import ArrivalCache
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import LaneInput, StepOutput
from proactivellm.policy.base import Policy
from proactivellm.policy.evidence import Seen
from proactivellm.policy.reason import Reason
from proactivellm.policy.spec import parse_policy
from proactivellm.session import outcome
from proactivellm.session.engine import Engine
from proactivellm.session.events import End, Ending, Event, Write
from proactivellm.session.integrity import IntegrityError
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling, sample

POISON = 9  # a token whose embedding is NaN
KINDS = {"parts": "llama", "static": "llama", "joint": "falcon"}
EXAMPLES = {"parts": 12, "static": 4, "joint": 8}
JOBS = (("wait-k:2", 7), ("attention:threshold=0.2,max_lag=3", 5), ("hold-n:n=1,draft=3", 6))
JOINT_JOBS = (("wait-k:2", 7), ("entropy:threshold=4,max_lag=3", 5), ("hold-n:n=1,draft=3", 6))
SAMPLINGS = (Sampling(), Sampling(temperature=0.9, seed=3, repetition_penalty=1.2), Sampling())
VICTIM = Sampling(temperature=0.8, seed=77)


class Faulty(StreamingCausalLM):
    """Does what `fault` says before a forward, and in it when its entries are written."""

    fault: Callable[[Sequence[LaneInput], bool], None] | None = None
    inputs: Sequence[LaneInput] = ()

    def step(
        self, cache: ArrivalCache, inputs: Sequence[LaneInput], attention: bool = False
    ) -> StepOutput | None:
        self.inputs = inputs
        if self.fault is not None:
            self.fault(inputs, False)
        return super().step(cache, inputs, attention)

    def attend(self, *args: Any) -> Tensor:
        hidden_1TD = super().attend(*args)
        if self.fault is not None:
            self.fault(self.inputs, True)
        return hidden_1TD


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Faulty]:
    made: dict[str, Faulty] = {}

    def make(kind: str) -> Faulty:
        if kind in made:
            return made[kind]
        family, folder = KINDS[kind], tmp_path_factory.mktemp(kind)
        if family in OBEYING:
            save_random(family, OBEYING[family], folder)
        else:
            save_tiny(family, folder, "word_piece")
        loaded = streams.load(folder, boundary="token")
        head = loaded.model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())  # not tied
        with torch.no_grad():
            loaded.model.get_input_embeddings().weight[POISON] = float("nan")
        config = loaded.model.generation_config
        config.max_new_tokens, config.eos_token_id = 6, []
        model = made[kind] = Faulty(loaded.model, loaded.tokenizer, loaded.settings)
        if kind == "static":
            model.accelerate("graph")
        return model

    return make


def source(model: StreamingCausalLM, count: int, number: int) -> list[Unit]:
    ids = streams.random_units(count, len(model.tokenizer), number)
    return streams.as_units([[t + (t == POISON) for t in unit] for unit in ids])


@dataclass
class Play:
    """An engine, and what its streams wrote and how they ended."""

    engine: Engine
    events: dict[int, list[Event]] = field(default_factory=dict)

    def open(self, units: Sequence[Unit], spec: str, sampling: Sampling) -> int:
        lane = self.engine.open(sampling, parse_policy(spec))
        self.events[lane] = []
        self.engine.push(lane, units)
        return lane

    def step(self) -> bool:
        try:
            events = self.engine.step()
        finally:
            self.engine.check_integrity()
        for event in events or ():
            self.events[event.lane].append(event)
        return events is not None

    def run(self) -> None:
        while self.step():
            pass

    def written(self, lane: int) -> list[tuple[Any, ...]]:
        return [
            (event.token_id, event.text, event.units_read)
            if isinstance(event, Write)
            else (event.how,)
            for event in self.events[lane]
            if isinstance(event, Write | End)
        ]


@pytest.fixture(scope="module")
def alone(model_of: Callable[[str], Faulty]) -> Callable[..., list[tuple[Any, ...]]]:
    known: dict[Any, list[tuple[Any, ...]]] = {}

    def run(kind: str, count: int, number: int, spec: str, sampling: Sampling) -> Any:
        key = kind, count, number, spec, sampling
        if key not in known:
            model = model_of(kind)
            model.fault = None
            play = Play(Engine(model, parse_policy(spec), Limits(), Sampling()))
            play.run() if play.open(source(model, count, number), spec, sampling) else play.run()
            known[key] = play.written(0)
        return known[key]

    return run


class Fails(Exception):
    """What is thrown here."""


class Bomb(Policy):
    """Fails in some way from the nth question on."""

    name = "bomb"

    def __init__(self, way: str, after: int) -> None:
        self.way, self.left = way, after

    def required_units(self, words_written: int) -> int | None:
        if self.way == "required" and self.left <= 0:
            raise Fails("no")
        self.left -= self.way == "required"
        return super().required_units(words_written)

    def decide(self, seen: Seen) -> Tensor:
        self.left -= self.way != "required"
        if self.left >= 0 or self.way == "required":
            return super().decide(seen)
        if self.way == "shape":
            return torch.full((5,), int(Reason.WRITE_RULE))
        if self.way == "dtype":
            return torch.ones(len(seen.units_read_B))
        if self.way == "code":
            return torch.full_like(seen.units_read_B, 99)
        raise Fails("no")

    def writes(self, seen: Seen) -> Tensor:
        return torch.ones_like(seen.units_read_B, dtype=torch.bool)


@dataclass
class Injection:
    """A fault in one place, at the nth time that it can happen."""

    place: str
    after: int

    def arm(self, model: Faulty, patch: pytest.MonkeyPatch, play: Play) -> int | None:
        """Open the victim, and arrange for its end; None: nobody is to blame."""
        units = source(model, 6, 50)
        count = self.after
        if self.place in ("raise", "shape", "dtype", "code", "required"):
            lane = play.open(units, "wait-k:1", VICTIM)
            play.engine.policies[lane] = Bomb(self.place, count)
            return lane
        if self.place == "poison":
            place = count % 6
            units[place] = Unit(token_ids=(12, POISON), final=units[place].final)
            return play.open(units, "wait-k:1", VICTIM)
        lane = play.open(units, "wait-k:1", VICTIM)
        if self.place == "sample":

            def draw(logits: Tensor, samplings: Any, steps: Any, history: Any) -> Tensor:
                if any(s is VICTIM and n >= count for s, n in zip(samplings, steps, strict=True)):
                    raise Fails("no")
                return sample(logits, samplings, steps, history)

            patch.setattr(outcome, "sample", draw)
        elif self.place == "detokenizer":
            detokenizer = play.engine.state(lane).detokenizer
            push = detokenizer.push

            def decode(token: int) -> str:
                if play.engine.state(lane).num_written >= count:
                    raise Fails("no")
                return push(token)

            patch.setattr(detokenizer, "push", decode)
            patch.setattr(detokenizer, "finish", lambda: 1 / 0)
        else:
            model.fault = self._in_forward(lane)
        return lane if self.place in ("before", "after", "detokenizer", "sample") else None

    def _in_forward(self, victim: int) -> Callable[[Sequence[LaneInput], bool], None]:
        left = self.after

        def fault(inputs: Sequence[LaneInput], ran: bool) -> None:
            nonlocal left
            mine = any(lane.lane == victim for lane in inputs)
            left -= mine and not ran
            if self.place == "crowd" and left < 0 and len(inputs) > 1 and ran:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            if mine and left < 0 and self.place == ("after" if ran else "before"):
                raise Fails("no")

        return fault


PLACES = ("raise", "shape", "dtype", "code", "required", "poison", "sample", "detokenizer")
PLACES += ("before", "after", "crowd")


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_ends_the_stream_whose_it_is_and_no_other_notices(
    model_of: Callable[[str], Faulty], alone: Callable[..., Any], kind: str
) -> None:
    model = model_of(kind)
    jobs = JOINT_JOBS if kind == "joint" else JOBS
    expected = [
        alone(kind, count, count, spec, sampling)
        for (spec, count), sampling in zip(jobs, SAMPLINGS, strict=True)
    ]
    own = alone(kind, 6, 50, "wait-k:1", VICTIM)
    later = alone(kind, 4, 60, "wait-k:2", Sampling())
    seen = dict.fromkeys(PLACES, 0)

    @seed(3)
    @settings(
        max_examples=EXAMPLES[kind],
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(place=st.sampled_from(PLACES), after=st.integers(0, 6), first=st.booleans())
    def law(place: str, after: int, first: bool) -> None:
        model.fault = None
        play = Play(Engine(model, parse_policy("offline"), Limits(streams=4), Sampling()))
        with pytest.MonkeyPatch.context() as patch:
            victim = Injection(place, after).arm(model, patch, play) if first else None
            lanes = [
                play.open(source(model, count, count), spec, sampling)
                for (spec, count), sampling in zip(jobs, SAMPLINGS, strict=True)
            ]
            if not first:
                victim = Injection(place, after).arm(model, patch, play)
            play.run()
        model.fault = None
        for lane, wanted in zip(lanes, expected, strict=True):
            assert play.written(lane) == wanted, (place, after)
            assert play.engine.state(lane).error is None
        if victim is None or play.engine.state(victim).error is None:
            assert place == "crowd" or after >= 5, (place, after)
            return
        seen[place] += 1
        *before, last = play.written(victim)
        before = [each for each in before if each[0] is not None]  # but for text held back
        assert before == own[: len(before)], (place, after)
        assert last == (Ending.ERROR,)
        asked = place in ("raise", "shape", "dtype", "code")
        wanted = "not finite" if place == "poison" else "policy bomb" if asked else ""
        assert wanted in str(play.engine.state(victim).error)
        play.engine.release(victim)  # its pages go to the next one
        again = play.open(source(model, 4, 60), "wait-k:2", Sampling())
        assert again == victim
        play.run()
        assert play.written(again) == later, (place, after)

    law()
    assert sum(count > 0 for count in seen.values()) >= min(5, EXAMPLES[kind] // 2), seen


@pytest.mark.parametrize("kind", ["parts", "joint"])
def test_what_fails_for_all_is_raised_and_may_be_tried_again(
    model_of: Callable[[str], Faulty], alone: Callable[..., Any], kind: str
) -> None:
    """At every step: nothing has changed, and the same is written in the end."""
    model = model_of(kind)
    jobs = (JOINT_JOBS if kind == "joint" else JOBS)[:2]
    streamed = list(zip(jobs, SAMPLINGS[:2], strict=True))
    expected = [alone(kind, count, count, spec, s) for (spec, count), s in streamed]
    model.fault = None
    play = Play(Engine(model, parse_policy("offline"), Limits(streams=2), Sampling()))
    lanes = [play.open(source(model, count, count), spec, s) for (spec, count), s in streamed]

    def fault(inputs: Sequence[LaneInput], ran: bool) -> None:
        if ran:
            raise MemoryError("no")

    def books() -> Any:
        engine = play.engine
        return (
            [engine.state(lane).state_dict() for lane in lanes],
            [*engine.cache.lengths],
            [*engine.cache.units],
        )

    failed = 0
    while any(not play.engine.state(lane).finished for lane in lanes):
        before = books()
        model.fault = fault
        with pytest.raises(MemoryError):
            play.step()
        failed += 1
        assert books() == before
        model.fault = None
        play.step()
    assert [play.written(lane) for lane in lanes] == expected and failed > 8


def test_nothing_of_a_released_stream_reaches_another(
    model_of: Callable[[str], Faulty], alone: Callable[..., Any]
) -> None:
    """It read what is not finite, and was gone before anything was written of it."""
    for kind in KINDS:
        model = model_of(kind)
        model.fault = None
        play = Play(Engine(model, parse_policy("offline"), Limits(streams=3), Sampling()))
        poison = [Unit(token_ids=(POISON,) * 9), Unit(token_ids=(POISON,) * 8)]
        bad = play.open(poison, "offline", Sampling())
        lanes = [play.open(source(model, 7, 7), "wait-k:2", Sampling())]
        play.step()
        play.engine.release(bad)
        lanes += [play.open(source(model, n, n), "wait-k:2", Sampling()) for n in (4, 5)]
        play.run()
        for lane, count in zip(lanes, (7, 4, 5), strict=True):
            wanted = alone(kind, count, count, "wait-k:2", Sampling())
            assert play.written(lane) == wanted, kind


def test_writes_outlive_a_step_that_raises(model_of: Callable[[str], Faulty]) -> None:
    """The end of one stream is told, though the forward of the others failed."""
    model = model_of("parts")
    model.fault = None
    play = Play(Engine(model, parse_policy("wait-k:1"), Limits(streams=3), Sampling()))
    for count in (3, 4):
        play.open(source(model, count, count), "wait-k:1", Sampling())
    empty = play.open([Unit.end()], "wait-k:1", Sampling())

    def fault(inputs: Sequence[LaneInput], ran: bool) -> None:
        raise Fails("no")

    model.fault = fault
    with pytest.raises(Fails):
        play.step()
    model.fault = None
    play.step()
    assert play.events[empty] == [End(lane=empty, how=Ending.EMPTY_SOURCE)]


def test_a_single_stream_ends_by_its_own_fault_and_not_for_want_of_memory(
    model_of: Callable[[str], Faulty],
) -> None:
    model = model_of("parts")
    for error, ends in ((Fails("no"), True), (RuntimeError("not enough memory: you tried"), False)):
        model.fault = None
        play = Play(Engine(model, parse_policy("wait-k:1"), Limits(), Sampling()))
        lane = play.open(source(model, 3, 3), "wait-k:1", Sampling())
        play.step()

        def fault(inputs: Sequence[LaneInput], ran: bool, error: Exception = error) -> None:
            raise error

        model.fault = fault
        if ends:
            play.step()
            assert play.engine.state(lane).error == "Fails: no"
        else:
            with pytest.raises(RuntimeError, match="not enough memory"):
                play.step()
            model.fault = None
            play.run()
            assert play.engine.state(lane).error is None and isinstance(play.events[lane][-1], End)


@pytest.mark.parametrize("after", range(5))
def test_a_store_that_cannot_grow_loses_nothing(
    model_of: Callable[[str], Faulty], alone: Callable[..., Any], after: int
) -> None:
    """Memory runs out at the nth buffer of a growth: the step is tried again."""
    from proactivellm.forward import cache as module

    model = model_of("parts")
    model.fault = None
    play = Play(Engine(model, parse_policy("offline"), Limits(streams=2), Sampling()))
    lanes = [play.open(source(model, n, n), "wait-k:2", Sampling()) for n in (20, 21)]
    pad, calls, raised = module.F.pad, 0, 0

    def failing(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == after + 1:
            raise MemoryError("no")
        return pad(*args, **kwargs)

    for _ in range(200):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.F, "pad", failing)
            try:
                if not play.step():
                    break
            except MemoryError:
                raised += 1
    assert calls > after
    for lane, count in zip(lanes, (20, 21), strict=True):
        assert play.written(lane) == alone("parts", count, count, "wait-k:2", Sampling())


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda e: e.cache.lengths.__setitem__(0, 3), "lane 0 has 3 entries and counts"),
        (lambda e: e.cache.pages[1].append(e.cache.pages[0][0]), "belongs to lanes 0 and 1"),
        (lambda e: e.cache.pages[0].pop(), "pages are held and"),
        (lambda e: e.cache.page_table.__setitem__((0, 0), 9), "page table of lane 0"),
        (lambda e: e.residence.parked.update({0: e.cache.snapshot(0)}), "parked and has"),
        (lambda e: e.admission.active.update({2: None}), "lane 2 is to be stepped"),
        (lambda e: e.cache.contiguous.__setitem__(0, not e.cache.contiguous[0]), "side by side"),
        (lambda e: e.cache.units.__setitem__(0, 0), "has entries of unit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_books_that_contradict_each_other_are_told(
    model_of: Callable[[str], Faulty], breakage: Callable[[Engine], Any], message: str
) -> None:
    model = model_of("parts")
    model.fault = None
    engine = Engine(model, parse_policy("wait-k:2"), Limits(streams=3), Sampling())
    for count in (4, 5):
        engine.push(engine.open(), source(model, count, count))
    for _ in range(3):
        engine.step()
    engine.check_integrity()
    breakage(engine)
    with pytest.raises(IntegrityError, match=message):
        engine.check_integrity()


def test_an_idle_engine_looks_at_its_books(model_of: Callable[[str], Faulty]) -> None:
    model = model_of("parts")
    model.fault = None
    engine = Engine(model, parse_policy("wait-k:2"), Limits(), Sampling())
    engine.push(engine.open(), source(model, 4, 4)[:2])
    while engine.state(0).units_read < 2:
        engine.step()
    engine.cache.lengths[0] += 1
    with pytest.raises(IntegrityError, match="entries and counts"):
        while engine.step() is not None:
            engine.cache.lengths[0] += 1
