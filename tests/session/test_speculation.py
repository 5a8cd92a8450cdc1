"""Speculation: whatever is proposed, a stream writes and decides what it would have without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.laws import streams
from tests.laws.streams import Recorder
from tests.policy.test_learned import random_head

from proactivellm.core.layout import SOURCE, TARGET
from proactivellm.forward.draft_model import DraftModel
from proactivellm.forward.lanes import Piece
from proactivellm.forward.speculation import Context, Lookup, Proposer, Speculation
from proactivellm.modality.loading import load as load_named
from proactivellm.modality.text import TextSegmenter
from proactivellm.policy.base import BoundedPolicy
from proactivellm.policy.evidence import Entropy
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.events import Event, Probed
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.window import Window

Load = Callable[..., Recorder]
SPECS = (
    "wait-k:2",
    "sentence-wait-k:2",
    "offline",
    "fixed:1-1-4-4-8",
    "entropy:threshold=4.5,max_lag=6",
    "confidence:threshold=0.06,max_lag=6",
    "attention:threshold=0.2,max_lag=6",
    "alignatt:frontier=2,max_lag=6",
    "concentration:threshold=0.25,max_lag=6",
    "combined:threshold=0.06,max_lag=6",
    "learned:threshold=0.7,max_lag=6",
    "local-agreement:n=2,draft=4,max_lag=5",
    "hold-n:n=1,draft=5,every=2",
    "oracle:0.4,max_lag=6",
)
SIZES = (5, 2, 3)  # units of the sources


@dataclass(frozen=True, kw_only=True)
class Planted(Speculation, Proposer):
    """Proposes what was written in another run, with a mistake here and there, or nothing."""

    tokens: int = 4
    targets: Sequence[Sequence[int]]
    mistakes: Sequence[int] = ()  # proposals are counted; after so many of them one is wrong
    calls: list[tuple[int, int]] = field(default_factory=list)  # lane, source tokens read

    def proposer(self, num_lanes: int) -> Proposer:
        return self

    def propose(self, contexts: Sequence[Context]) -> list[list[int]]:
        return [self._planted(context) for context in contexts]

    def _planted(self, context: Context) -> list[int]:
        self.calls.append((context.lane, context.num_source))
        num_written = len(context.target)
        proposed = list(self.targets[context.lane][num_written : num_written + context.most])
        if self.mistakes:
            right = self.mistakes[len(self.calls) % len(self.mistakes)]
            proposed[right:] = [3 + len(self.calls) % 90 for _ in proposed[right:]]
        return proposed


def run(
    model: Recorder,
    spec: str,
    speculation: Speculation | None,
    *,
    window: Window | None = None,
    sampling: Sampling | None = None,
    **limits: int,
) -> tuple[Engine, list[list[Event]], list[list[int]]]:
    """The engine, the events and the target of each lane; units arrive one by one."""
    model.speculate(speculation)
    policy = parse_policy(spec, whole_source=True)
    engine = Engine(
        model, policy, Limits(streams=3, **limits), sampling or Sampling(), window=window
    )
    events: list[list[Event]] = [[] for _ in SIZES]
    queues = []
    for size in SIZES:
        lane = engine.open()
        source = streams.random_units(size, len(model.tokenizer), seed=size)
        queues.append((lane, streams.as_units(source)))
    while True:
        for lane, units in queues:
            engine.push(lane, units if policy.clairvoyant else units[:1])
            del units[: len(units) if policy.clairvoyant else 1]
        stepped = engine.step()
        for event in stepped or ():
            events[event.lane].append(event)
        if stepped is None and not any(units for _, units in queues):
            break
    engine.check_integrity()
    assert all(engine.state(lane).finished for lane in range(len(SIZES)))
    return engine, events, [engine.state(lane).target for lane in range(len(SIZES))]


@pytest.fixture
def make(load_endless: Load) -> Load:
    def load(family: str = "llama", **settings: object) -> Recorder:
        model = load_endless(family, **{"max_tokens": 8, **settings})
        model.head = random_head(model.model.config.hidden_size)
        return model

    return load


@pytest.mark.parametrize(
    ("spec", "boundary"),
    [(spec, "token") for spec in SPECS] + [(spec, "word") for spec in SPECS[::4]],
)
def test_writes_and_decisions_are_those_without(make: Load, spec: str, boundary: str) -> None:
    """Every event of every lane, reasons included; lanes keep different numbers of proposals."""
    model = make(boundary=boundary)
    plain, expected, targets = run(model, spec, None)
    planted = Planted(targets=targets, mistakes=(2, 4, 0, 1, 3))
    engine, events, _ = run(model, spec, planted)
    assert events == expected
    assert 0 < engine.speculator.kept < engine.speculator.proposed
    assert engine.forwards < plain.forwards
    assert engine.tokens <= plain.tokens + engine.speculator.proposed
    for lane in range(len(SIZES)):
        assert engine.state(lane).forwards <= plain.state(lane).forwards


@pytest.mark.parametrize(
    ("family", "settings", "spec"),
    [
        # sliding windows
        ("gemma3_text", {"layout": "interleaved", "phi": 3}, "attention:threshold=0.3,max_lag=5"),
        ("llama", {"layout": "reencoded"}, "entropy:threshold=4.5,max_lag=5"),
        ("gpt2", {}, "alignatt:frontier=2,max_lag=3"),  # has 64 positions
        ("falcon", {}, "confidence:threshold=0.06,max_lag=3"),  # one attention call for all lanes
    ],
)
def test_layouts_and_families(make: Load, family: str, settings: dict, spec: str) -> None:
    model = make(family, boundary="token", **settings)
    _, expected, targets = run(model, spec, None)
    engine, events, _ = run(model, spec, Planted(targets=targets, mistakes=(4, 1, 3)))
    assert events == expected
    assert engine.speculator.kept > 0


@pytest.mark.parametrize(
    ("spec", "limits"),
    [
        ("wait-k:2", {"window": Window(source=9, target=7)}),
        ("hold-n:n=1,draft=4", {"window": Window(source=9, target=7)}),
        ("entropy:threshold=4.5,max_lag=5", {"entries": 50}),
        ("wait-k:2", {"step_tokens": 5}),
    ],
)
def test_windows_small_stores_and_short_steps(make: Load, spec: str, limits: dict) -> None:
    """Proposals take what is left over: streams that are near their limits go on all the same."""
    model = make(boundary="token", max_tokens=12)
    _, expected, targets = run(model, spec, None, **limits)
    # What has left the window is no part of the target; the end is.
    engine, events, _ = run(model, spec, Planted(targets=targets, mistakes=(3, 1)), **limits)
    assert events == expected
    assert engine.speculator.proposed > 0


def test_draws_are_those_without(make: Load) -> None:
    """A draw depends on the place in the target, so that sampled tokens can be proposed too."""
    model = make(boundary="token")
    sampling = Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.3, seed=5)
    _, greedy, _ = run(model, "wait-k:2", None)
    _, expected, targets = run(model, "wait-k:2", None, sampling=sampling)
    speculation = Planted(targets=targets, mistakes=(2, 4))
    engine, events, _ = run(model, "wait-k:2", speculation, sampling=sampling)
    assert events == expected != greedy
    assert engine.speculator.kept > 0


def test_fixed_shapes(make: Load) -> None:
    model = make(boundary="token")
    model.accelerate("graph")
    _, expected, targets = run(model, "attention:threshold=0.2,max_lag=4", None)
    planted = Planted(targets=targets, mistakes=(3, 1))
    engine, events, _ = run(model, "attention:threshold=0.2,max_lag=4", planted)
    assert events == expected
    assert engine.speculator.kept > 0


class TestForwards:
    """How many there are, where it is known what is kept."""

    @pytest.fixture
    def offline(self, make: Load) -> tuple[Recorder, Engine, list[list[int]]]:
        model = make(boundary="token", max_tokens=11)
        plain, _, targets = run(model, "offline", None)
        return model, plain, targets

    def test_right_proposals_save_all_but_every_fifth(self, offline) -> None:
        model, plain, targets = offline
        engine, _, _ = run(model, "offline", Planted(targets=targets))
        for lane, size in enumerate(SIZES):
            # The last unit comes with the first token; the limit of 11 is seen after the last.
            assert plain.state(lane).forwards == size - 1 + 12
            assert engine.state(lane).forwards == size - 1 + 3
        assert engine.tokens == plain.tokens
        assert engine.speculator.kept == engine.speculator.proposed

    def test_wrong_ones_cost_none(self, offline) -> None:
        model, plain, targets = offline
        engine, _, _ = run(model, "offline", Planted(targets=targets, mistakes=(0,)))
        assert engine.forwards == plain.forwards
        assert engine.speculator.kept == 0 < engine.speculator.proposed
        assert engine.tokens == plain.tokens + engine.speculator.proposed

    def test_words_that_have_to_wait_are_not_proposed(self, make: Load) -> None:
        """Under wait-k no second word follows without a READ, so that nothing would be saved."""
        model = make(boundary="token")
        plain, _, targets = run(model, "wait-k:1", None)
        engine, _, _ = run(model, "wait-k:1", Planted(targets=targets))
        assert engine.speculator.kept == engine.speculator.proposed > 0
        assert engine.tokens == plain.tokens

    def test_a_rule_that_said_read_is_asked_first(self, make: Load) -> None:
        model = make(boundary="token")
        planted = Planted(targets=[[5] * 40] * 3)
        run(model, "entropy:threshold=0.001", planted)  # waits to the end
        for lane in range(len(SIZES)):  # before it has ever said so, and at the end
            assert len({read for number, read in planted.calls if number == lane}) == 2


def test_a_policy_that_fails_ends_its_lane_as_without(make: Load) -> None:
    class Fails(BoundedPolicy):
        name = "fails"
        min_lag = 1
        max_lag = None
        stride = 1.0
        evidence = (Entropy(),)

        def required_units(self, words_written: int) -> int:
            if words_written == 5:
                raise RuntimeError("no sixth word")
            return 1

        def writes(self, seen):
            return seen[Entropy()] > 0

    model = make(boundary="token")
    _, _, targets = run(model, "offline", None)
    found = []
    for speculation in (None, Planted(targets=targets)):
        model.speculate(speculation)
        engine = Engine(model, Fails())
        lane = engine.open()
        engine.push(lane, streams.as_units(streams.random_units(3, 90, seed=1), final=False))
        while engine.step() is not None:
            pass
        found.append((engine.state(lane).error, engine.state(lane).target))
    assert found[0] == found[1]
    assert "no sixth word" in str(found[0][0])


def test_who_watches_is_told_of_every_probe(make: Load) -> None:
    model = make(boundary="token")
    model.speculate(Planted(targets=[[5] * 40] * 3))
    engine = Engine(model, parse_policy("wait-k:2"))
    lane = engine.open(watch=[Entropy()])
    engine.push(lane, streams.as_units(streams.random_units(4, 90, seed=1)))
    steps = []
    while (events := engine.step()) is not None:
        steps.append(sum(isinstance(event, Probed) for event in events))
    assert max(steps) == 1 and engine.speculator.proposed == 0


def context(source: Sequence[int], target: Sequence[int], earlier: Sequence[int] = ()) -> Context:
    piece = Piece(SOURCE, 1, source)
    return Context(0, None, [piece], len(source), target, earlier, {SOURCE: 0, TARGET: 0}, 3)


class TestLookup:
    def test_the_longest_and_latest_place_is_proposed(self) -> None:
        found = Lookup(longest=2).propose(
            [
                context([7, 8, 9, 10, 11], [1, 8]),
                context([7, 8, 9, 10, 11], [7, 8]),
                context([7, 8, 1, 8, 2, 3], [9, 8]),  # the later one of two
                context([7, 8, 1, 8, 2, 3], [7, 8]),  # the longer one of two
                context([7, 8], [5]),
                context([7, 8, 9], [7, 8], earlier=[7, 8, 20, 21]),
            ]
        )
        assert found == [[9, 10, 11], [9, 10, 11], [2, 3, -1], [1, 8, 2], [], [20, 21, -1]]

    def test_a_longer_stream_is_not_searched_for_longer(self) -> None:
        looked = 0

        class Watched(list[int]):
            def __getitem__(self, key: Any) -> Any:
                nonlocal looked
                found = super().__getitem__(key)
                looked += len(found) if isinstance(key, slice) else 1
                return found

            def __iter__(self) -> Iterator[int]:
                nonlocal looked
                looked += len(self)
                return super().__iter__()

        lookup, found, counts = Lookup(reach=60), [], []
        for size in (50, 500, 5000):
            looked, ids = 0, [index % 40 for index in range(size)]
            given = context([], Watched(ids), Watched(ids))
            pieces = [
                Piece(SOURCE, 1 + at // 4, Watched(ids[at : at + 4])) for at in range(0, size, 4)
            ]
            found += lookup.propose([given._replace(source=pieces)])
            counts.append(looked)
        assert found == [[10, 11, 12], [20, 21, 22], [0, 1, 2]], "the target, 40 tokens earlier"
        assert counts[0] < counts[1] == counts[2] == 3 * 60

    def test_drafts_are_taken_from_the_draft_before(self, make: Load) -> None:
        """Local agreement drafts anew after each unit, mostly the same."""
        model = make(boundary="token")
        spec = "hold-n:n=2,draft=6"
        plain, expected, _ = run(model, spec, None)
        engine, events, _ = run(model, spec, Lookup())
        assert events == expected
        assert engine.forwards < plain.forwards

    @pytest.mark.parametrize(
        ("settings", "said"), [({name: 0}, f"{name}=0") for name in ("tokens", "longest", "reach")]
    )
    def test_what_proposes_nothing_is_refused(self, settings: dict, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Lookup(**settings)


class TestDraftModel:
    @pytest.mark.parametrize(
        ("layout", "spec"),
        [
            ("grouped", "wait-k:2"),
            ("interleaved", "wait-k:2"),
            ("reencoded", "wait-k:2"),
            ("grouped", "confidence:threshold=0.06,max_lag=4"),
        ],
    )
    def test_a_model_that_drafts_for_itself_is_always_right(
        self, make: Load, layout: str, spec: str
    ) -> None:
        model = make(boundary="token", layout=layout)
        plain, expected, _ = run(model, spec, None)
        engine, events, _ = run(model, spec, DraftModel(model=model))
        assert events == expected
        assert engine.forwards < plain.forwards
        kept, proposed = engine.speculator.kept, engine.speculator.proposed
        # What is not kept was proposed before the rule said READ, or beyond the length limit.
        assert kept > proposed / 2

    def test_another_model_changes_nothing(self, make: Load) -> None:
        model, other = make("qwen3", boundary="token"), make("gemma3_text", layout="interleaved")
        _, expected, _ = run(model, "local-agreement:2,draft=4", None)
        draft = DraftModel(model=other, tokens=3)
        _, events, _ = run(model, "local-agreement:2,draft=4", draft)
        assert events == expected

    def test_it_has_fewer_positions(self, make: Load) -> None:
        model, other = make(boundary="token"), make("gpt2")
        other.limit = 8
        _, expected, _ = run(model, "wait-k:2", None)
        _, events, _ = run(model, "wait-k:2", DraftModel(model=other))
        assert events == expected

    def test_another_vocabulary_is_refused(self, make: Load) -> None:
        model = make()
        with pytest.raises(ValueError, match="has another vocabulary"):
            load_named("lookup-qa").speculate(DraftModel(model=model))
        assert model.speculation is None


def test_the_bundled_model_writes_the_same() -> None:
    model = load_named("tatoeba-de-en")
    units = TextSegmenter(model.tokenizer).segment("Ich habe ihn gestern getroffen.")
    for spec, speculation in (
        ("learned:0.7", DraftModel(model=model)),
        ("local-agreement:2,draft=5", Lookup()),
    ):
        states = []
        for each in (None, speculation):
            model.speculate(each)
            session = Session(model, parse_policy(spec), Sampling())
            session.push(units)
            states.append(session.state)
        plain, state = states
        assert (state.target, state.delays) == (plain.target, plain.delays)
        assert state.finished and state.forwards < plain.forwards
