"""The edges of a stream: what may enter, how it ends, who may call, what is kept of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import END, Recorder
from tests.models import save_tiny
from torch import Tensor

from proactivellm.backbone.prompt import Prompt, encode_prompt
from proactivellm.core.unit import Unit
from proactivellm.forward.lanes import Piece
from proactivellm.policy.agreement import LocalAgreement
from proactivellm.policy.endogenous import Entropy
from proactivellm.policy.evidence import Confidence, Seen, entropy
from proactivellm.policy.evidence import Entropy as EntropyOf
from proactivellm.policy.fixed import WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session import drafts
from proactivellm.session.engine import Engine
from proactivellm.session.events import End, Ending, Event, Probed, Write
from proactivellm.session.history import SeenIds
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.state import SessionState
from proactivellm.session.window import Window, trim

WIDTH = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("llama"), "word_piece")


@pytest.fixture
def model(folder: Path) -> Recorder:
    """Decides at every token; targets are cut after 12."""
    model = streams.load(folder, boundary="token")
    model.model.generation_config.eos_token_id = []
    return model


def units(model: Recorder, count: int, seed: int = 1, final: bool = True) -> list[Unit]:
    return streams.as_units(streams.random_units(count, len(model.tokenizer), seed), final)


def drain(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while (new := engine.step()) is not None:
        engine.check_integrity()
        events += new
    return events


def bare_state(**values: Any) -> SessionState:
    return SessionState(sampling=Sampling(), detokenizer=None, **values)  # type: ignore[arg-type]


class TestIntake:
    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (lambda rows: Unit(token_ids=(5, rows)), r"token id \d+ is none of the model's, .* 0"),
            (lambda rows: Unit(token_ids=(-1,)), "unit 2 of 3 cannot be read: token id -1"),
            (lambda rows: Unit(features=torch.zeros(3, 31)), r"\[3, 31\]: the model takes \[T, 32"),
            (lambda rows: Unit(features=torch.zeros(32)), r"features are \[32\]"),
            (lambda rows: Unit(features=torch.zeros(2, 32).long()), "int64: give floating"),
            (lambda rows: Unit(features=torch.full((1, 32), torch.nan)), "not finite"),
            (lambda rows: Unit(features=torch.full((1, 32), torch.inf)), "not finite"),
            (lambda rows: Unit(features=[[0.0] * 32]), "features are list"),  # type: ignore
            (lambda rows: (5, 6), "is no unit"),
        ],
    )
    def test_what_cannot_be_read_is_refused_and_nothing_of_the_call_is_taken(
        self, model: Recorder, bad: Callable[[int], Any], message: str
    ) -> None:
        engine = Engine(model, WaitK(k=1), Limits(streams=2), Sampling())
        lane, other = engine.open(), engine.open()
        good = units(model, 4)
        engine.push(other, good)
        rows = model.model.get_input_embeddings().weight.shape[0]
        with pytest.raises(ValueError, match=message):
            engine.push(lane, [good[0], bad(rows), good[-1]])
        assert not engine.state(lane).pending and not engine.state(lane).closed
        engine.push(lane, good)
        drain(engine)
        assert engine.state(lane).target == engine.state(other).target

    def test_the_last_row_is_a_token(self, model: Recorder) -> None:
        rows = model.model.get_input_embeddings().weight.shape[0]
        session = Session(model, WaitK(k=1), Sampling())
        assert session.push(Unit(token_ids=(0, rows - 1), final=True)) and session.state.finished

    @pytest.mark.parametrize("ids", [(1.5,), ("5",), "12", (None,)])
    def test_ids_are_whole_numbers(self, ids: Any) -> None:
        with pytest.raises(ValueError, match=r"token_ids=.*: give whole numbers"):
            Unit(token_ids=ids)

    def test_a_session_goes_on_after_a_refusal(self, model: Recorder) -> None:
        source = units(model, 4)
        expected = streams.feed(Session(model, WaitK(k=1), Sampling()), source, 1).state.target
        session = Session(model, WaitK(k=1), Sampling())
        session.push(source[:2])
        with pytest.raises(ValueError, match="token id -3"):
            session.push([source[2], Unit(token_ids=(-3,))])
        session.push(source[2:])
        assert session.state.target == expected


class TestEnds:
    """A stream ends once, and nothing follows."""

    def ends(self, events: list[Event], how: Ending) -> None:
        assert [event for event in events if isinstance(event, End)] == [events[-1]]
        assert events[-1] == End(lane=events[-1].lane, how=how)

    @pytest.mark.parametrize("spec", ["wait-k:2", "offline", "local-agreement:2", "entropy:4"])
    def test_however_it_ends(self, model: Recorder, spec: str) -> None:
        model.model.generation_config.eos_token_id = END
        for source in ([Unit.end()], units(model, 1), [*units(model, 3, final=False), Unit.end()]):
            session = Session(model, parse_policy(spec), Sampling())
            events = [event for unit in source for event in session.advance(unit)]
            limited = Ending.LENGTH_LIMIT if session.state.truncated else Ending.END_TOKEN
            self.ends(events, Ending.EMPTY_SOURCE if source[0].is_end else limited)
            assert session.state.source_finished and session.close() == session.cancel() == []

    def test_an_empty_source_among_others(self, model: Recorder) -> None:
        engine = Engine(model, WaitK(k=1), Limits(streams=3), Sampling())
        empty, other, copy = engine.open(), engine.open(), engine.open()
        engine.push(empty, [Unit.end()])
        engine.push(other, units(model, 3))
        engine.restore(copy, engine.snapshot(empty))
        events = drain(engine)
        for lane in (empty, copy):
            (last,) = (event for event in events if event.lane == lane)
            assert last == End(lane=lane, how=Ending.EMPTY_SOURCE)
            assert engine.state(lane).forwards == 0
        engine.release(empty)
        again = engine.open()
        engine.push(again, [Unit.end()])
        engine.release(again)
        assert engine.open() == again and engine.step() is None, "it belongs to the one before"

    def test_cancelled(self, model: Recorder) -> None:
        engine = Engine(model, WaitK(k=1), Limits(streams=2), Sampling())
        lane = engine.open()
        engine.push(lane, units(model, 5))
        events = [*(engine.step() or []), *(engine.step() or [])]
        state = engine.state(lane)
        events += engine.cancel(lane)
        self.ends(events, Ending.CANCELLED)
        written = [event.text for event in events if isinstance(event, Write)]
        assert "".join(written) == state.detokenizer.text
        assert engine.cancel(lane) == [] and engine.step() is None

    def test_before_its_source(self, folder: Path) -> None:
        model = streams.load(folder, early_end=True, boundary="token")
        model.forced = {0: [50, 51, END]}
        events = list(Session(model, WaitK(k=1), Sampling()).advance(units(model, 6)))
        self.ends(events, Ending.END_TOKEN)


class Waits(Entropy):
    """Decides when it is told to."""

    def decide(self, seen: Seen) -> Tensor:
        self.asked.set()
        assert self.go.wait(20)
        return super().decide(seen)

    asked = threading.Event()
    go = threading.Event()


def test_calls_from_two_threads_do_not_meet(model: Recorder) -> None:
    source = units(model, 3)
    expected = Session(model, Entropy(threshold=9.0), Sampling()).push(source)
    session = Session(model, Waits(threshold=9.0), Sampling())
    writes: list[Write] = []
    thread = threading.Thread(target=lambda: writes.extend(session.push(source)))
    thread.start()
    try:
        assert Waits.asked.wait(20)
        for call in (session._engine.step, session.cancel, session.rollback, session.clone):
            with pytest.raises(RuntimeError, match="from one thread at a time"):
                call()
        with pytest.raises(RuntimeError, match="the middle of another call"):
            session.push([])
    finally:
        Waits.go.set()
        thread.join()
    assert writes == expected, "and the one that was first is not disturbed"


class TestLimitOfTheGenerationSettings:
    LIMIT = 6

    def run(self, model: Recorder, window: Window | None, count: int) -> Session:
        model.model.generation_config.max_new_tokens = self.LIMIT
        session = Session(model, WaitK(k=1), Sampling(), window)
        for unit in units(model, count):
            session.push(unit)
        return session

    def test_an_endless_stream_is_not_silenced(self, model: Recorder) -> None:
        """Each time that source leaves the window, as much may be written again."""
        for count in (40, 80):
            state = self.run(model, Window(source=14, target=40), count).state
            assert state.truncated and state.num_written > count // 2
            late = [g for g in state.delays if g > count - 8]
            assert late and state.num_written - state.written_at_drop <= self.LIMIT

    def test_a_large_one_is_renewed_as_far_as_what_is_in_view_allows(
        self, model: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Words without end would otherwise take longer with every drop."""
        monkeypatch.setattr(self, "LIMIT", 500)
        state = self.run(model, Window(source=14, target=40), 40).state
        assert state.truncated and state.dropped_units
        assert state.num_written - state.written_at_drop == 32 + 4 * state.num_in_view

    def test_one_that_keeps_all_in_view_is_cut(self, model: Recorder) -> None:
        for window in (None, Window(source=4096)):
            state = self.run(model, window, 40).state
            assert state.num_written == self.LIMIT and state.truncated


class TestSavedWithoutAWindow:
    def save(self, model: Recorder, path: Path, window: Window | None, features: bool) -> list:
        source = units(model, 24)
        if features:
            generator = torch.Generator().manual_seed(3)
            source[2] = Unit(features=torch.randn(2, WIDTH, generator=generator))
        session = Session(model, WaitK(k=2), Sampling(), window)
        session.push(source[:5])
        session.save(path)
        return source[5:]

    def test_features_are_missed_and_the_stream_is_refused(
        self, model: Recorder, tmp_path: Path
    ) -> None:
        self.save(model, tmp_path / "s.pt", None, features=True)
        with pytest.raises(ValueError, match=r"s.pt: .*kept only where there is a window"):
            Session.load(tmp_path / "s.pt", model, WaitK(k=2), Window(source=14))
        Session.load(tmp_path / "s.pt", model, WaitK(k=2))

    @pytest.mark.parametrize("features", [False, True])
    def test_else_it_goes_on_as_if_it_had_had_one(
        self, model: Recorder, tmp_path: Path, features: bool
    ) -> None:
        window = Window(source=24, target=20)
        rest = self.save(model, tmp_path / "a.pt", window, features)
        expected = Session.load(tmp_path / "a.pt", model, WaitK(k=2), window)
        self.save(model, tmp_path / "b.pt", window if features else None, features)
        loaded = Session.load(tmp_path / "b.pt", model, WaitK(k=2), window)
        for session in (expected, loaded):
            session.push(rest)
        assert loaded.state.dropped_units == expected.state.dropped_units > 0
        assert loaded.state.target == expected.state.target

    def test_entries_that_the_state_does_not_count_are_refused(self, model: Recorder) -> None:
        engine = Engine(model, WaitK(k=1), Limits(streams=2), Sampling())
        engine.push(engine.open(), units(model, 3))
        engine.step()
        snapshot = engine.snapshot(0)
        snapshot["state"]["counts"]["target"] += 1
        with pytest.raises(ValueError, match="the snapshot has .* entries and counts"):
            engine.restore(engine.open(), snapshot)
        engine.check_integrity()

    def test_a_stream_saved_with_other_counters_is_named(
        self, model: Recorder, tmp_path: Path
    ) -> None:
        """As earlier releases counted: by two numbers in place of groups."""
        session = Session(model, WaitK(k=1), Sampling())
        session.push(units(model, 3)[:2])
        session.save(tmp_path / "s.pt")
        snapshot = torch.load(tmp_path / "s.pt", weights_only=True)
        counts = snapshot["state"].pop("counts")
        snapshot["state"] |= {"num_source": counts["source"], "settled": counts["target"]}
        torch.save(snapshot, tmp_path / "s.pt")
        with pytest.raises(ValueError, match=r"s\.pt holds no session of this model \(TypeError"):
            Session.load(tmp_path / "s.pt", model, WaitK(k=1))


class TestPenalisedIds:
    @pytest.mark.parametrize(
        ("spec", "window"),
        [
            ("wait-k:2", None),
            ("local-agreement:n=2,draft=4,max_lag=3", None),
            ("hold-n:n=1,draft=4", Window(source=14, target=9)),
            ("wait-k:2", Window(source=16, target=12, sinks=1)),
        ],
    )
    def test_they_are_what_is_in_view(
        self, model: Recorder, monkeypatch: pytest.MonkeyPatch, spec: str, window: Window | None
    ) -> None:
        """After every change: units, tokens, drafts, a window, a rollback, a copy."""
        compared, looked_at = 0, 0
        of, add = SeenIds.of, SeenIds._add

        def checked(self: SeenIds, state: SessionState, device: torch.device) -> Tensor:
            nonlocal compared
            ids = of(self, state, device).tolist()
            read = [token for piece in state.source for token in piece.tokens]
            assert sorted(ids) == sorted({*read, *state.target, *state.draft})
            compared += 1
            return torch.tensor(ids, device=device)

        def counted(self: SeenIds, ids: Any) -> None:
            nonlocal looked_at
            looked_at += len(ids)
            add(self, ids)

        monkeypatch.setattr(SeenIds, "of", checked)
        monkeypatch.setattr(SeenIds, "_add", counted)
        engine = Engine(
            model, parse_policy(spec), Limits(streams=2), Sampling(repetition_penalty=1.3), window
        )
        lane = engine.open()
        source = units(model, 14)
        engine.push(lane, source[:9])
        for step in range(12):
            engine.step()
            if step == 6:
                engine.push(lane, engine.rollback(lane))
        engine.restore(engine.open(), engine.snapshot(lane))
        engine.release(lane)
        engine.push(1, source[9:])
        drain(engine)
        state = engine.state(1)
        assert compared > 10
        if window is None:
            once = state.source_tokens + len(state.target)
            assert looked_at <= 2 * once, "each id once, and once more after the copy"

    def test_the_penalty_is_that_of_the_whole_history(self, model: Recorder) -> None:
        from proactivellm.session.sampling import sample

        logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
        history = [[3, 7, 3, 9, 7], [0]]
        by_ids = [torch.tensor([9, 3, 7]), torch.tensor([0])]
        samplings = [Sampling(temperature=1.0, repetition_penalty=1.7, seed=5)] * 2
        for step in range(9):
            steps = [step, step]
            assert torch.equal(
                sample(logits, samplings, steps, history), sample(logits, samplings, steps, by_ids)
            )


def test_a_hypothesis_is_kept_without_what_was_written_since() -> None:
    """By hand: those that agree with it lose its tokens, those that do not are forgotten."""
    policy = LocalAgreement(n=3, draft=5)
    state = bare_state(target=[1, 10, 11], num_head=1)
    state.hypotheses = [[10, 11, 12], [10, 99]]
    state.draft = [10, 11, 13, 14]
    drafts.end_draft(state, policy, committed=2)
    assert state.hypotheses == [[12], [13, 14]][-policy.history :]
    assert state.draft == [] and state.counts["target"] == 2 and state.wants_read
    state.draft = [12, 15]
    drafts.end_draft(state, policy, committed=0)
    assert state.hypotheses == [[12], [13, 14], [12, 15]][-policy.history :]


@pytest.mark.parametrize(("inside", "kept"), [(0, 4), (1, 3), (2, 2)])
def test_a_window_cuts_the_target_before_a_word(inside: int, kept: int) -> None:
    """9 tokens, of which 5 are to go, and with them the rest of the word that they end in."""
    starts = [True] * 6 + [False] * inside + [True] * (14 - inside)
    state = bare_state(target=[19, *range(1, 10)], num_head=1, source=[Piece("source", 0, [5])])
    state.counts["source"] = 1
    state.delays = [1] * 9
    assert trim(state, Window(source=50, target=9), 0, starts)
    assert state.target[1:] == list(range(10 - kept, 10)) and starts[state.target[1]]
    assert state.dropped_tokens == 9 - kept == 9 - len(state.delays)


def test_statistics_are_of_what_may_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open source cannot be ended: a policy sees the distribution of the other tokens."""
    model = streams.load(folder, boundary="token")
    model.model.generation_config.max_new_tokens = 5
    kept: list[Tensor] = []
    step = model.step

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = step(*args, **kwargs)
        if output is not None:
            output.logits_PV[:, END] += 3.0  # likely, but not the best
            kept.append(output.logits_PV[0].clone())
        return output

    monkeypatch.setattr(model, "step", watched)
    engine = Engine(model, WaitK(k=1), sampling=Sampling())
    engine.push(engine.open(watch=(EntropyOf(), Confidence())), units(model, 4))
    probes = [event for event in drain(engine) if isinstance(event, Probed)]
    changed, opened = 0, 0
    for logits_V, probe in zip(kept, probes, strict=True):
        entropy_of, max_prob = float(probe.seen[EntropyOf()]), float(probe.seen[Confidence()])
        probs_V = logits_V.softmax(-1)
        if int(probe.seen.units_read_B) < 4:
            changed += abs(float(entropy(probs_V[None])) - entropy_of) > 1e-3
            opened += 1
            logits_V[END] = -torch.inf
            probs_V = logits_V.softmax(-1)
        assert entropy_of == pytest.approx(float(entropy(probs_V[None])), abs=1e-5)
        assert max_prob == pytest.approx(float(probs_V.max()), abs=1e-5)
    assert changed > 0 and opened < len(probes)


def test_the_whole_target_head_is_fed_and_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand, from the tokenizer: also after a window has dropped all that was written."""
    model = streams.load(folder, Prompt(source_head="<s>:", target_head="<s>= the"))
    head = model.tokenizer.encode("<s>= the", add_special_tokens=False)
    assert len(head) > 2
    assert list(encode_prompt(model.tokenizer, Prompt(target_head="<s>= the")).target_head) == head
    fed: list[list[int]] = []
    step = model.step

    def watched(cache: Any, inputs: Any, attention: bool = False) -> Any:
        probed = [each for each in inputs if each.probe is not None and not each.counts["target"]]
        fed.extend(list(each.pieces[-1].tokens) for each in probed)
        return step(cache, inputs, attention)

    monkeypatch.setattr(model, "step", watched)
    session = Session(model, WaitK(k=1), Sampling(), Window(source=12, target=12))
    session.push(units(model, 20))
    assert fed[0] == head and len(fed) > 2
    assert all(target[: len(head)] == head for target in fed)


def test_a_restored_stream_knows_how_many_units_it_holds(model: Recorder) -> None:
    """Its attention has a place for each of them, though it reads nothing more."""
    source = units(model, 6, final=False)
    policy = parse_policy("attention:threshold=0.9")
    engine = Engine(model, policy, Limits(streams=1), Sampling())
    engine.push(engine.open(), source)
    drain(engine)
    assert engine.cache.units[0] > 1
    other = Engine(model, policy, Limits(streams=1), Sampling())
    other.restore(other.open(), engine.snapshot(0))
    other.check_integrity()
    assert other.cache.units == engine.cache.units
    for each in (engine, other):
        each.push(0, [Unit.end()])
        drain(each)
    assert other.state(0).error is None and other.state(0).target == engine.state(0).target


class TestBfloat16:
    """What holds in bf16: a run repeats to the bit, and a neighbour shifts logits by rounding."""

    TOLERANCE = 0.04  # of the largest logit; fp32 keeps 1e-4

    def run(self, model: Recorder, beside: int) -> tuple[list[int], Tensor]:
        model.logits = {}
        engine = Engine(model, WaitK(k=2), Limits(streams=1 + beside), Sampling())
        for seed in range(1 + beside):
            engine.push(engine.open(), units(model, 6, seed=seed))
        drain(engine)
        state = engine.state(0)
        return state.target, model.recorded(len(state.delays))

    def test_repeatable_and_close(self, folder: Path) -> None:
        model = streams.load(folder, boundary="token")
        forced = streams.random_ids(20, len(model.tokenizer), seed=5)
        model.forced = dict.fromkeys(range(4), forced)
        exact = self.run(model, 0)[1]
        model.model.to(torch.bfloat16)
        alone, beside = (self.run(model, count) for count in (0, 3))
        for count, first in ((0, alone), (3, beside)):
            again = self.run(model, count)
            assert again[0] == first[0] and torch.equal(again[1], first[1])
        assert streams.gap(beside[1], alone[1]) <= self.TOLERANCE
        assert streams.gap(alone[1], exact) <= self.TOLERANCE
