"""Evidence in an engine: what is declared is computed, once, where it is looked at, and exact."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import END, Recorder
from tests.models import save_tiny
from torch import Tensor

from proactivellm.core.unit import Unit
from proactivellm.policy import evidence
from proactivellm.policy.attention import Attention
from proactivellm.policy.base import BoundedPolicy, DraftPolicy, Policy
from proactivellm.policy.endogenous import Entropy
from proactivellm.policy.evidence import Evidence, Rows, Seen
from proactivellm.policy.fixed import WaitK
from proactivellm.policy.reason import Reason
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.events import Event, Probed, Read, Write
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def model(folder: Path) -> Recorder:
    model = streams.load(folder, boundary="token")
    model.model.generation_config.max_new_tokens = 12
    return model


def units(model: Recorder, count: int, seed: int = 1) -> list[Unit]:
    return streams.as_units(streams.random_units(count, len(model.tokenizer), seed))


def run(engine: Engine, sources: Sequence[Sequence[Unit]], **opened: Any) -> list[Event]:
    for source in sources:
        engine.push(engine.open(**opened), source)
    events: list[Event] = []
    while (new := engine.step()) is not None:
        events += new
    return events


@dataclass(frozen=True)
class Counted(Evidence):
    """How many lanes were looked at, each time."""

    sizes: ClassVar[list[int]] = []

    def of(self, rows: Rows) -> Tensor:
        self.sizes.append(len(rows.probs_PV))
        return rows.probs_PV[:, 0]


@dataclass(frozen=True, kw_only=True)
class Looks(BoundedPolicy):
    """Always certain."""

    name: ClassVar[str] = "looks"
    evidence = (Counted(),)

    def writes(self, seen: Seen) -> Tensor:
        return seen[Counted()] >= 0


class TestWhatIsComputed:
    def test_once_for_all_policies_that_want_the_same(self, model: Recorder) -> None:
        Counted.sizes.clear()
        engine = Engine(model, WaitK(k=1), Limits(streams=4), Sampling())
        for policy in (Looks(), Looks(max_lag=9), WaitK(k=1), Looks()):
            engine.push(engine.open(policy=policy), units(model, 3)[:1])
        engine.step()
        assert Counted.sizes == [3]

    def test_nothing_where_bounds_or_the_end_of_the_source_settle_it(self, model: Recorder) -> None:
        Counted.sizes.clear()
        events = run(Engine(model, Looks(max_lag=1), sampling=Sampling()), [units(model, 4)])
        assert not Counted.sizes
        reasons = [event.reason for event in events if isinstance(event, Write) and event.reason]
        finished = [Reason.WRITE_SOURCE_FINISHED] * (len(reasons) - 3)
        assert reasons == [Reason.WRITE_MAX_LAG] * 3 + finished

    def test_attention_is_kept_only_for_lanes_that_are_open(
        self, model: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[int, bool]] = []
        step = model.step

        def watched(cache: Any, inputs: Any, attention: bool = False) -> Any:
            asked.append((engine.state(0).units_read, attention))
            return step(cache, inputs, attention)

        monkeypatch.setattr(model, "step", watched)
        policy = Attention(threshold=0.9, min_lag=0)
        engine = Engine(model, policy, sampling=Sampling())
        run(engine, [units(model, 4)])
        kept = [attention for _, attention in asked]
        assert kept[0] and not any(kept[-8:]), "none once the source is finished"
        assert engine.state(0).source_finished and engine.state(0).num_written == 12

    def test_a_policy_is_not_shown_what_it_did_not_name(self, model: Recorder) -> None:
        class Curious(Policy):
            name = "curious"
            evidence = (evidence.Candidate(),)

            def writes(self, seen: Seen) -> Tensor:
                return seen[evidence.Confidence()] > 0.5

        session = Session(model, Curious(), Sampling())
        with pytest.raises(ValueError, match=r"curious could not decide: Confidence\(\) was"):
            session.push(units(model, 3))


class TestHiddenAndCandidate:
    @pytest.mark.parametrize("static", [False, True])
    def test_they_are_those_of_the_token(self, model: Recorder, static: bool) -> None:
        """The output layer makes the logits out of the one; the other is what a WRITE writes."""
        if static:
            model.accelerate("graph")
        watch = (evidence.Hidden(), evidence.Candidate(), evidence.Confidence())
        engine = Engine(model, parse_policy("entropy:5.2"), Limits(streams=2), Sampling())
        events = run(engine, [units(model, 5), units(model, 7, seed=2)], watch=watch)
        probes = [event for event in events if isinstance(event, Probed)]
        decided = [probe.reason.writes for probe in probes if probe.reason is not None]
        assert set(decided) == {True, False}
        for probe in probes:
            hidden_BD = probe.seen[evidence.Hidden()]
            assert hidden_BD.shape == (1, model.model.config.hidden_size)
            with torch.no_grad():
                logits_V = model.parts.project(hidden_BD.clone())[0].float()
            assert int(logits_V.argmax()) == probe.token_id
            assert probe.seen[evidence.Candidate()].tolist() == [probe.token_id]
        written = [event.token_id for event in events if isinstance(event, Write) and event.reason]
        assert written == [p.token_id for p in probes if p.reason is not None and p.reason.writes]

    def test_a_policy_learned_from_them_may_decide(self, model: Recorder) -> None:
        weight_D = torch.randn(model.model.config.hidden_size, generator=torch.manual_seed(0))

        class Learned(Policy):
            name = "learned"
            evidence = (evidence.Hidden(), evidence.Candidate())

            def decide(self, seen: Seen) -> Tensor:
                assert seen[self.evidence[1]].dtype == torch.int64
                lag_B = seen.units_read_B - seen.words_written_B
                score_B = seen[self.evidence[0]] @ weight_D + lag_B
                return torch.where(score_B > 1, int(Reason.WRITE_RULE), int(Reason.READ_RULE))

        sources = [units(model, 6, seed=seed) for seed in range(3)]
        engine = Engine(model, Learned(), Limits(streams=3), Sampling())
        events = run(engine, sources)
        assert {event.reason for event in events if isinstance(event, Read)} >= {Reason.READ_RULE}
        for lane, source in enumerate(sources):  # alone as in company
            alone = streams.feed(Session(model, Learned(), Sampling()), source, None).state
            assert alone.delays == engine.state(lane).delays and alone.target
            assert alone.target == engine.state(lane).target

    def test_an_inner_layer_is_refused_before_the_stream(self, model: Recorder) -> None:
        class Inner(Policy):
            name = "inner"
            evidence = (evidence.Hidden(layer=1),)

            def writes(self, seen: Seen) -> Tensor:
                return seen.units_read_B > 0

        with pytest.raises(ValueError, match=r"policy 'inner': there are no hidden states of laye"):
            Session(model, Inner())


class TestWatching:
    @pytest.mark.parametrize("spec", ["wait-k:2", "entropy:5.2", "attention:0.4", "hold-n:1"])
    def test_it_changes_nothing_and_misses_nothing(self, model: Recorder, spec: str) -> None:
        plain = streams.feed(Session(model, parse_policy(spec), Sampling()), units(model, 6), None)
        model.num_probes = 0
        engine = Engine(model, parse_policy(spec), sampling=Sampling())
        watch = (evidence.Entropy(), evidence.Attention())
        events = run(engine, [units(model, 6)], watch=watch)
        assert engine.state(0).target == plain.state.target
        assert engine.state(0).delays == plain.state.delays
        probes = [event for event in events if isinstance(event, Probed)]
        assert len(probes) == model.num_probes
        for probe in probes:
            assert set(probe.seen.evidence) >= set(watch)
            read = int(probe.seen.units_read_B)
            assert probe.seen[watch[1]][0, :read].sum() == pytest.approx(1.0)

    def test_the_end_that_is_held_is_told(self, model: Recorder) -> None:
        model.forced = {0: [50, END]}
        engine = Engine(model, WaitK(k=1), sampling=Sampling())
        events = run(engine, [units(model, 4)], watch=())
        reasons = [event.reason for event in events if isinstance(event, Read)]
        assert reasons == [Reason.READ_RULE, Reason.READ_RULE, *[Reason.READ_END_HELD] * 2]


def test_a_policy_without_options_has_its_name_for_a_spec(model: Recorder) -> None:
    class Plain(Policy):
        name = "plain"

        def __init__(self, patience: int) -> None:
            self.patience = patience

        def writes(self, seen: Seen) -> Tensor:
            return seen.units_read_B > self.patience

    assert Plain(3).spec == "plain" and Plain(3).options == {}
    assert Session(model, Plain(2), Sampling()).push(units(model, 4))

    class Nameless(Plain):
        name = ""

    with pytest.raises(ValueError, match="Nameless has no name: give the class one"):
        Session(model, Nameless(1))


def test_a_policy_without_a_rule_is_refused_when_its_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"'ruleless' \(Ruleless\) has no rule: define `writes`"):

        class Ruleless(BoundedPolicy):
            name = "ruleless"

    class Base(BoundedPolicy):
        """Has no name, so that it may leave the rule to others."""

    with pytest.raises(TypeError, match="'later'"):

        class Later(Base):
            name = "later"

    class Whole(Base):
        name = "whole"

        def decide(self, seen: Seen) -> Tensor:
            return seen.units_read_B

    with pytest.raises(TypeError, match="abstract .*'?commit'?"):

        class Draft(DraftPolicy):
            name = "draft"
            lookahead = history = 1

        Draft()


def test_evidence_has_a_row_for_each_lane(model: Recorder) -> None:
    @dataclass(frozen=True)
    class Short(Evidence):
        def of(self, rows: Rows) -> Tensor:
            return rows.tokens_P[:0]

    class Blind(Policy):
        name = "blind"
        evidence = (Short(),)

        def writes(self, seen: Seen) -> Tensor:
            return seen.units_read_B > 0

    with pytest.raises(ValueError, match=r"Short\(\) could not be computed: it is \[0\], and 1"):
        Session(model, Blind(), Sampling()).push(units(model, 3))
    Blind.evidence = ("entropy",)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="policy 'blind': 'entropy' is no `Evidence`"):
        Session(model, Blind())


def test_evidence_that_fails_for_one_lane_ends_that_one(model: Recorder) -> None:
    @dataclass(frozen=True)
    class Picky(Evidence):
        def of(self, rows: Rows) -> Tensor:
            if 50 in rows.tokens_P.tolist():
                raise RuntimeError("not 50")
            return rows.tokens_P

    class Picks(Policy):
        name = "picks"
        evidence = (Picky(),)

        def writes(self, seen: Seen) -> Tensor:
            return seen[Picky()] > 0

    model.forced = {0: [51] * 20, 1: [51, 50] * 10, 2: [52] * 20}
    engine = Engine(model, Picks(), Limits(streams=3), Sampling())
    run(engine, [units(model, 5, seed=seed) for seed in range(3)])
    errors = [engine.state(lane).error for lane in range(3)]
    assert errors[0] is None and errors[2] is None
    assert "Picky() could not be computed: RuntimeError: not 50" in str(errors[1])
    assert engine.state(1).num_written == 1 and engine.state(0).num_written == 12


def test_one_policy_among_others_is_asked_on_its_own_rows(model: Recorder) -> None:
    """Lanes of several policies with different evidence, each as alone."""
    specs = ("entropy:5.2", "confidence:0.006", "attention:0.4", "wait-k:2", "entropy:5.1,top=9")
    engine = Engine(model, Entropy(threshold=1.0), Limits(streams=5), Sampling())
    for number, spec in enumerate(specs):
        engine.push(engine.open(policy=parse_policy(spec)), units(model, 6, seed=number))
    while engine.step() is not None:
        pass
    for lane, spec in enumerate(specs):
        session = Session(model, parse_policy(spec), Sampling())
        alone = streams.feed(session, units(model, 6, seed=lane), None).state
        state = engine.state(lane)
        assert (alone.target, alone.delays) == (state.target, state.delays)
