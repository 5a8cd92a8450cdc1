"""AlignAtt with a running norm, a vote of heads and a floor: by hand, and as lanes keep it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import Recorder
from tests.models import save_tiny
from torch import Tensor

from proactivellm.core.unit import Unit
from proactivellm.forward.lanes import StepOutput
from proactivellm.policy.alignatt import AlignAtt, HeadAttention, HeadMoments, deviations
from proactivellm.policy.evidence import Attention, Evidence, Rows, Seen
from proactivellm.session.engine import Engine
from proactivellm.session.events import Event, Probed, Write
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.window import Window

HEADS = ((0, 0), (1, 1), (1, 0))
FULL = AlignAtt(heads=HEADS, norm="running", pool="median", max_lag=4)
FOLLOWS = [[0.6, 0.1, 0.1, 0.1], [0.6, 0.2, 0.05, 0.05], [0.6, 0.05, 0.2, 0.05]]  # a sink, a word


def by_hand(heads_BNU: list[list[list[float]]], units: list[int], **options: float) -> list[bool]:
    """What the vote decides on such attention."""
    weights_BNU = torch.tensor(heads_BNU)
    seen = Seen(
        units_read_B=torch.tensor(units),
        units_in_view_B=torch.tensor(units),
        words_written_B=torch.zeros(len(units), dtype=torch.long),
        evidence={HeadAttention(): weights_BNU, Attention(): weights_BNU.mean(1)},
    )
    return AlignAtt(**options).writes(seen).tolist()  # type: ignore[arg-type]


def probe(weights_U: Sequence[float], past: Tensor | None, padding: int = 0) -> Tensor:
    """Moments after a probe of one head that attends so; what is lacking to 1 is on the prompt."""
    weights = torch.tensor([*weights_U, 1 - sum(weights_U), *[0.0] * padding])
    read = len(weights_U)
    units = torch.tensor([[*range(1, read + 1), 0, *[-1] * padding]])
    output = StepOutput(
        logits_PV=torch.zeros(1, 3),
        hidden_PD=torch.zeros(1, 2),
        weights_LPHK=weights[None, None, None],
        unit_PK=units,
        num_units=read + padding,
    )
    evidence = HeadMoments()
    rows = Rows(output, torch.zeros(1), pasts=[{} if past is None else {evidence.key: past}])
    return evidence.of(rows)[0, ..., :read]


class TestByHand:
    def test_one_odd_head_decides_the_mean_and_not_the_median(self) -> None:
        odd = [[0.3, 0.2, 0.1], [0.3, 0.2, 0.1], [0.0, 0.0, 0.9]]
        even = [[0.0, 0.0, 0.4], [0.0, 0.0, 0.4], [0.9, 0.0, 0.0]]
        assert by_hand([odd, even], [3, 3]) == [False, True]
        assert by_hand([odd, even], [3, 3], pool="median") == [True, False]

    def test_a_token_that_hardly_looks_at_older_units_waits(self) -> None:
        """What counts is the attention before the frontier, not that on all of the source."""
        heads = [[[0.2, 0.1, 0.2]], [[0.1, 0.05, 0.05]], [[0.2, 0.1, 0.2]]]
        assert by_hand(heads, [3, 3, 3], min_mass=0.15) == [True, True, True]
        assert by_hand(heads, [3, 3, 3], min_mass=0.25) == [True, False, True]
        assert by_hand(heads, [3, 3, 3], min_mass=0.25, frontier=2) == [False] * 3

    def test_defaults_ask_for_what_they_always_did(self) -> None:
        assert AlignAtt(heads=HEADS).evidence == (Attention(HEADS),)
        assert len(FULL.evidence) == 3

    @pytest.mark.parametrize("padding", [0, 3])
    def test_the_running_norm_takes_away_a_sink(self, padding: int) -> None:
        past = None
        chosen: list[int] = []
        for weights in [*FOLLOWS, [0.6, 0.05, 0.05, 0.2]]:
            past = probe(weights, past, padding)
            scores = deviations(torch.tensor(weights)[None, None], past[None])
            assert abs(float(scores[0, 0, 0])) < 1e-4, "the sink"
            chosen.append(int(scores[0, 0].argmax()))
        assert chosen[1:] == [1, 2, 3], "the sink has most of the attention each time"

    def test_moments_are_those_of_the_tokens_that_saw_the_unit(self) -> None:
        past = None
        for read, weights in zip((2, 2, 3, 4), FOLLOWS + [[0.5, 0.1, 0.2, 0.1]], strict=True):
            past = probe(weights[:read], past)
        rows = torch.tensor([*FOLLOWS, [0.5, 0.1, 0.2, 0.1]])
        assert past is not None
        for unit, since in enumerate((0, 0, 2, 3)):
            column = rows[since:, unit]
            expected = [len(column), column.mean(), column.var(unbiased=False) * len(column)]
            assert past[:, 0, unit].tolist() == pytest.approx([float(x) for x in expected])
        scores = deviations(torch.tensor([[[0.5, 0.1, 0.2, 0.1]]]), past[None])
        assert scores[0, 0, 3] == 0, "nothing is known of what was just read"

    def test_a_wrong_option_is_told(self) -> None:
        with pytest.raises(ValueError, match="norm must be none or running, got 'z'"):
            AlignAtt(norm="z")
        with pytest.raises(ValueError, match="pool must be mean or median, got 'vote'"):
            AlignAtt(pool="vote")
        with pytest.raises(ValueError, match="min_mass must be at least 0 and below 1, got 1"):
            AlignAtt(min_mass=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    model = streams.load(save_tiny("llama", tmp_path_factory.mktemp("llama")))
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = 40
    return model


def units(model: Recorder, count: int, seed: int = 1) -> list[Unit]:
    return streams.as_units(streams.random_units(count, len(model.tokenizer), seed))


def run(engine: Engine, sources: Sequence[Sequence[Unit]], *watch: Evidence) -> list[Event]:
    for source in sources:
        engine.push(engine.open(watch=watch), source)
    events: list[Event] = []
    while (new := engine.step()) is not None:
        events += new
    return events


class TestInLanes:
    @pytest.mark.parametrize("window", [None, Window(source=16, target=40, sinks=1)])
    def test_a_lane_keeps_what_it_wrote_and_not_what_it_considered(
        self, model: Recorder, window: Window | None
    ) -> None:
        """Whatever decides, and each unit with the tokens that saw it."""
        engine = Engine(model, FULL, sampling=Sampling(), window=window)
        events = run(engine, [units(model, 14)[:-1]], HeadAttention(HEADS))
        probes = [event for event in events if isinstance(event, Probed) and event.reason]
        assert len({event.reason for event in probes}) >= 3
        assert any(not event.reason.writes for event in probes if event.reason)
        counts: Counter[int] = Counter()
        sums: dict[int, Tensor] = {}
        state = engine.state(0)
        assert (state.dropped_units > 0) == (window is not None)
        sinks = window.sinks if window else 0
        for event in probes:
            in_view, read = int(event.seen.units_in_view_B), int(event.seen.units_read_B)
            seen = [*range(sinks), *range(sinks + read - in_view, read)]
            if event.reason is not None and event.reason.writes:
                counts.update(seen)
                for column, unit in enumerate(seen):
                    weights_N = event.seen[HeadAttention(HEADS)][0, :, column]
                    sums[unit] = sums.get(unit, torch.zeros(len(HEADS))) + weights_N
        kept = [*range(sinks), *range(sinks + state.dropped_units, state.units_read)]
        past = state.past[HeadMoments(HEADS).key]
        assert 0 < past.shape[-1] <= len(kept)
        kept = kept[: past.shape[-1]]
        assert past[0, 0].tolist() == [counts[unit] for unit in kept]
        expected = torch.stack([sums[unit] / counts[unit] for unit in kept], dim=1)
        torch.testing.assert_close(past[1], expected)

    def test_in_company_as_alone(self, model: Recorder) -> None:
        sources = [units(model, count, seed=count) for count in (6, 9, 13)]
        engine = Engine(model, FULL, Limits(streams=3), Sampling())
        run(engine, sources)
        for lane, source in enumerate(sources):
            alone = streams.feed(Session(model, FULL, Sampling()), source, 2).state
            state = engine.state(lane)
            assert (state.target, state.delays) == (alone.target, alone.delays)
            assert len(set(state.delays)) > 2
            torch.testing.assert_close(state.past, alone.past, atol=1e-5, rtol=1e-4)

    def test_a_stream_that_was_saved_goes_on(self, model: Recorder, tmp_path: Path) -> None:
        source = units(model, 12)
        expected = streams.feed(Session(model, FULL, Sampling()), source, 1).state
        begun = streams.feed(Session(model, FULL, Sampling()), source[:7], 1)
        begun.save(tmp_path / "stream.pt")
        loaded = Session.load(tmp_path / "stream.pt", model, FULL)
        (past,) = begun.state.past.values()
        for session in (loaded, begun.clone()):
            assert session.state.past[HeadMoments(HEADS).key].equal(past)
            assert past is not session.state.past[HeadMoments(HEADS).key]
        for session in (loaded, begun):
            done = streams.feed(session, source[7:], 1).state
            assert (done.target, done.delays) == (expected.target, expected.delays)
            assert done.past[HeadMoments(HEADS).key].equal(expected.past[HeadMoments(HEADS).key])

    def test_another_policy_keeps_nothing(self, model: Recorder) -> None:
        engine = Engine(model, AlignAtt(heads=HEADS), sampling=Sampling())
        events = run(engine, [units(model, 6)], HeadMoments(HEADS))
        assert any(isinstance(event, Write) for event in events)
        assert not engine.state(0).past
