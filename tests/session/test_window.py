"""Windows: what leaves a stream is as if it had never been, what stays is bounded.

After each drop a stream goes on as a fresh one that was given only what was kept: its logits are
those of one masked forward over what is in view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import PROMPT, TOLERANCE, Recorder, gap
from tests.two_groups import lane_input, sample_of
from torch import Tensor

from proactivellm.backbone.prompt import Prompt
from proactivellm.core.unit import Unit
from proactivellm.forward.cache import PAGE
from proactivellm.forward.probe import unit_attention
from proactivellm.policy.agreement import HoldN
from proactivellm.policy.attention import Attention
from proactivellm.policy.base import DraftPolicy, Policy
from proactivellm.policy.evidence import Seen
from proactivellm.policy.fixed import Offline, WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.events import Write
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.state import SessionState
from proactivellm.session.window import Window

SPECS = (
    "wait-k:2",
    "wait-k:7",
    "offline",
    "entropy:threshold=4.7,max_lag=6",
    "attention:threshold=0.2,max_lag=6",
    "local-agreement:n=2,draft=3,max_lag=5",
    "hold-n:n=1,draft=4",
)
SMALL = Window(source=14, target=9)
WITH_SINKS = Window(source=16, target=12, sinks=2)
MODELS: tuple[tuple[str, dict[str, Any], Window], ...] = (  # each policy meets two of them
    ("qwen3", {"phi": 5}, SMALL),
    ("gemma3_text", {"boundary": "token"}, WITH_SINKS),  # sliding and full layers
    ("llama", {"layout": "interleaved"}, WITH_SINKS),
    ("llama", {"layout": "interleaved"}, SMALL),
)
Load = Callable[..., Recorder]


@pytest.fixture
def load(load_endless: Load) -> Load:
    """Models whose targets are cut after 24 tokens in which no source leaves the window."""
    return partial(load_endless, max_tokens=24)


def units(model: Recorder, count: int, seed: int = 1, final: bool = True) -> list[Unit]:
    return streams.as_units(streams.random_units(count, len(model.tokenizer), seed), final)


def written(state: SessionState) -> list[int]:
    return state.target[state.num_head :]


def view_of(state: SessionState) -> list[list[int]]:
    """Tokens of the units in view, the prompt first."""
    view: list[list[int]] = [[] for _ in range(state.units_read - state.dropped_units + 1)]
    for _, unit, tokens, _ in state.source if state.counts["source"] else []:
        view[unit] += tokens
    return view


@dataclass
class Span:
    """A stretch of a stream in which nothing is dropped, as it was at its end."""

    kept: int  # target tokens kept at its start
    first_probe: int = 0  # units in view at its first probe
    view: list[list[int]] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    g: list[int] = field(default_factory=list)  # in units in view
    logits: list[Tensor] = field(default_factory=list)  # of the tokens written in it


@dataclass
class Watched:
    """A windowed stream, step by step: what it read, wrote and dropped."""

    model: Recorder
    engine: Engine
    spans: list[Span] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    g: list[int] = field(default_factory=list)
    text: str = ""
    most_entries: int = 0

    @classmethod
    def run(
        cls, model: Recorder, policy: Policy, source: Sequence[Unit], window: Window, size: int = 1
    ) -> Watched:
        watched = cls(model, Engine(model, policy, sampling=Sampling(), window=window))
        watched.engine.open()
        for chunk in streams.chunks(source, size):
            watched.engine.push(0, chunk)
            while watched.step():
                pass
        assert watched.state.error is None
        return watched

    @property
    def state(self) -> SessionState:
        return self.engine.state(0)

    def step(self) -> bool:
        before = self.state.dropped_units, self.state.dropped_tokens
        probed = self.model.num_probes
        events = self.engine.step()
        writes = [event for event in events or [] if isinstance(event, Write)]
        state = self.state
        new = [write.token_id for write in writes if write.token_id is not None]
        if not self.spans or before != (state.dropped_units, state.dropped_tokens):
            self.spans.append(Span(kept=len(written(state)) - len(new)))
        span = self.spans[-1]
        if self.model.num_probes > probed and not span.first_probe:
            span.first_probe = state.units_read - state.dropped_units
        self.tokens += new
        self.g += [write.units_read for write in writes if write.token_id is not None]
        self.text += "".join(write.text for write in writes)
        span.view, span.target = view_of(state), written(state)
        span.g = [g - state.dropped_units for g in state.delays]
        span.logits = [self.model.logits[0, t] for t in range(span.kept, len(span.target))]
        self.most_entries = max(self.most_entries, self.engine.cache.lengths[0])
        return events is not None

    def expected(self, span: Span) -> Tensor:
        """Logits of what a span wrote, in one masked forward over what it had in view."""
        policy, head = self.engine.policy, list(self.model.prompt.target_head)
        kept = span.first_probe if isinstance(policy, DraftPolicy) else span.g[span.kept]
        g = [*[kept] * span.kept, *span.g[span.kept :]]
        sample = sample_of(span.view, head, span.target)
        return streams.masked_logits(self.model, sample, [g])[0][span.kept :]


@pytest.mark.parametrize(
    ("spec", "family", "settings", "window"),
    [(spec, *MODELS[(i + j) % len(MODELS)]) for i, spec in enumerate(SPECS) for j in (0, 2)],
    ids=str,
)
def test_after_a_drop_a_stream_is_one_that_was_given_only_what_was_kept(
    load: Load, family: str, settings: dict[str, Any], spec: str, window: Window
) -> None:
    model = load(family, **settings)
    watched = Watched.run(model, parse_policy(spec), units(model, 16), window)
    assert watched.state.finished and len(watched.spans) > 2
    num_compared = 0
    for span in watched.spans:
        if span.logits:
            assert gap(torch.stack(span.logits), watched.expected(span)) <= TOLERANCE
            num_compared += len(span.logits)
    assert num_compared == len(watched.tokens) >= 24, "the limit is renewed as source leaves"


class Rarely(HoldN):
    """Writes two tokens after every sixth unit."""

    def commit(self, drafts: Sequence[Sequence[int]]) -> int:
        self.calls.append(len(drafts))
        return 2 if len(self.calls) % 6 == 0 else 0

    calls: list[int] = []


def test_a_draft_begins_anew_when_the_whole_target_was_dropped(load: Load) -> None:
    """The head, too, sees what the next token is predicted from."""
    model = load(boundary="token")
    Rarely.calls.clear()
    watched = Watched.run(model, Rarely(n=0, draft=3), units(model, 30), SMALL)
    spans = [span for span in watched.spans[1:] if not span.kept and span.logits]
    assert any(span.g[0] > span.first_probe for span in spans)
    for span in spans:
        assert gap(torch.stack(span.logits), watched.expected(span)) <= TOLERANCE


def test_what_was_dropped_would_have_made_a_difference(load: Load) -> None:
    """The law above can fail: with one unit more, or less, in view the logits are others."""
    model = load()
    watched = Watched.run(model, WaitK(k=2), units(model, 24), SMALL)
    spans = [span for span in watched.spans[1:] if span.logits]
    assert spans
    for span in spans:
        actual = torch.stack(span.logits)
        whole = list(span.view)
        for other in ([whole[0], [9, 8], *whole[1:]], [whole[0], *whole[2:]]):
            shift = len(other) - len(whole)
            span.view, g = other, span.g
            span.g = [max(1, units_in_view + shift) for units_in_view in g]
            assert gap(watched.expected(span), actual) > 1e-2
            span.view, span.g = whole, g


@pytest.mark.parametrize("spec", SPECS)
def test_a_window_that_is_not_outgrown_changes_nothing(load: Load, spec: str) -> None:
    """A window that holds the whole stream and not a token more; one token less, and it drops."""
    model, policy = load(), parse_policy(spec)
    source = units(model, 9)
    plain = streams.feed(Session(model, policy, Sampling()), source, 1).state
    logits = model.recorded(len(plain.delays))
    window = Window(source=plain.counts["source"], target=len(plain.target))
    state = streams.feed(Session(model, policy, Sampling(), window), source, 1).state
    assert (state.target, state.delays) == (plain.target, plain.delays)
    assert (state.forwards, state.tokens) == (plain.forwards, plain.tokens)
    assert (state.dropped_units, state.dropped_tokens) == (0, 0)
    assert torch.equal(model.recorded(len(plain.delays)), logits)
    window = Window(source=plain.counts["source"] - 1, target=len(plain.target))
    state = streams.feed(Session(model, policy, Sampling(), window), source, 1).state
    assert state.finished and state.dropped_units > 0


@pytest.mark.parametrize(
    ("spec", "window"), [(s, (SMALL, WITH_SINKS)[i % 2]) for i, s in enumerate(SPECS)], ids=str
)
def test_what_is_in_view_is_bounded_and_the_rest_is_accounted_for(
    load: Load, spec: str, window: Window
) -> None:
    model, policy = load("llama"), parse_policy(spec)
    source = units(model, 24, seed=5)
    watched = Watched.run(model, policy, source, window)
    state, sinks = watched.state, window.sinks
    ahead = policy.lookahead if isinstance(policy, DraftPolicy) else 0
    assert watched.most_entries <= window.source + window.target + ahead
    assert len(watched.engine.cache.pages[0]) * PAGE < watched.most_entries + PAGE
    for span in watched.spans:
        assert sum(map(len, span.view)) <= window.source
        assert len(span.target) + state.num_head <= window.target + max(1, ahead)
    assert state.dropped_units > 0 and state.dropped_tokens > 0

    view, tail = view_of(state), model.prompt.source_tail
    assert view.pop(0) == list(model.prompt.source_head)
    assert len(view) + state.dropped_units == state.units_read == len(source)
    read = [list(unit.token_ids) for unit in source]
    read[-1] += tail
    assert view == [*read[:sinks], *read[sinks + state.dropped_units :]]
    tokens = watched.tokens
    assert len(written(state)) + state.dropped_tokens == state.num_written == len(tokens)
    assert written(state) == [*tokens[:sinks], *tokens[sinks + state.dropped_tokens :]]
    assert state.delays == [*watched.g[:sinks], *watched.g[sinks + state.dropped_tokens :]]
    total = len(model.prompt.source_head) + sum(map(len, read))
    assert state.source_tokens == total, "what was dropped counts towards the length limit"
    assert state.detokenizer.text == watched.text, "text is never taken back"


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_dropped_does_not_depend_on_how_units_are_pushed(load: Load, spec: str) -> None:
    model, policy = load(layout="interleaved"), parse_policy(spec)
    source = units(model, 16, seed=7)
    runs = [Watched.run(model, policy, source, SMALL, size) for size in (1, 99)]
    outcomes = [
        (run.tokens, run.state.dropped_units, run.state.dropped_tokens, run.state.tokens)
        for run in runs
    ]
    assert outcomes[0] == outcomes[1]


class Spy(Attention):
    """An attention policy that keeps what it saw."""

    seen: list[Seen] = []

    def writes(self, seen: Seen) -> Tensor:
        self.seen.append(seen)
        return super().writes(seen)


def test_attention_is_that_on_the_units_in_view(load: Load) -> None:
    """At the first probe after a drop: as if what is in view had just arrived."""
    model = load()
    policy = Spy(threshold=0.2, max_lag=6)
    watched = Watched(model, Engine(model, policy, sampling=Sampling(), window=WITH_SINKS))
    watched.engine.open()
    num_compared = 0
    for unit in units(model, 30, final=False):
        watched.engine.push(0, [unit])
        while True:
            Spy.seen.clear()
            num_spans, num_tokens = len(watched.spans), len(watched.tokens)
            if not watched.step():
                break
            state = watched.state
            for seen in Spy.seen:
                in_view = state.units_read - state.dropped_units
                assert int(seen.units_in_view_B) == in_view
                attention_BU = seen[policy.evidence[0]]
                shares = attention_BU[0, :in_view]
                assert (shares > 0).all() and shares.sum() == pytest.approx(1.0)
                newest = policy.statistic(seen)
                assert newest.tolist() == attention_BU[:, in_view - 1].tolist()
                if len(watched.spans) > max(num_spans, 1):
                    target = watched.state.target
                    before = target[: len(target) - len(watched.tokens) + num_tokens]
                    fresh = model.step(
                        model.new_cache(),
                        [
                            lane_input(
                                0, [piece[1:3] for piece in state.source], before, probes=True
                            )
                        ],
                        attention=True,
                    )
                    assert fresh is not None and fresh.weights_LPHK is not None
                    assert fresh.unit_PK is not None
                    expected = unit_attention(fresh.weights_LPHK, fresh.unit_PK)
                    torch.testing.assert_close(attention_BU, expected)
                    num_compared += 1
    assert num_compared >= 3


def test_memory_is_constant_over_hundreds_of_units(load: Load) -> None:
    model = load("llama", boundary="token", prompt=Prompt(target_head="<s>"))
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = 10**6
    engine = Engine(model, WaitK(k=2), sampling=Sampling(), window=SMALL)
    engine.open()
    entries, most = engine.cache.num_entries, SMALL.source + SMALL.target
    for token in streams.random_ids(300, len(model.tokenizer), seed=9):
        engine.push(0, [Unit(token_ids=(token,))])
        while engine.step() is not None:
            model.logits.clear()
        state, cache = engine.state(0), engine.cache
        assert cache.lengths[0] <= most and len(cache.pages[0]) <= most // PAGE + 1
        assert len(state.source) <= SMALL.source and len(state.delays) <= SMALL.target
    assert state.units_read == 300 and state.num_written == 299
    assert cache.num_entries == entries and cache.page_table.size * PAGE <= entries
    assert len(cache.pool._lowest) <= cache.pool.num_pages


class TestWhatIsTooLarge:
    @pytest.mark.parametrize(
        ("window", "message"),
        [
            (Window(source=4, target=20), "4 source tokens .* prompt of 2 .* at least 5"),
            (Window(source=20, target=4), "4 target tokens .* prompt of 2 .* at least 5"),
            (Window(source=20, target=8, sinks=2), "2 and 2 sinks: give at least 9"),
        ],
        ids=["source", "target", "sinks"],
    )
    def test_a_prompt(self, load: Load, window: Window, message: str) -> None:
        model = load()
        assert [len(head) for head in (model.prompt.source_head, model.prompt.target_head)] == [
            2
        ] * 2
        with pytest.raises(ValueError, match=message):
            Engine(model, Offline(), window=window)
        with pytest.raises(ValueError, match=message):
            Session(model, Offline(), window=window)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"source": 1}, "source=1: a window holds at least 2"),
            ({"target": 0}, "target=0: a window holds at least 2"),
            ({"sinks": -1}, "sinks=-1: give 0 or more"),
        ],
        ids=str,
    )
    def test_nonsense(self, values: dict[str, int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Window(**values)

    def test_the_smallest_window_holds_two(self) -> None:
        assert Window(source=2, target=2).source == 2

    @pytest.mark.parametrize("spec", ["wait-k:1", "offline", "local-agreement:n=2,draft=3"])
    def test_a_unit_longer_than_the_window_is_read_whole_and_leaves(
        self, load: Load, spec: str
    ) -> None:
        model = load()
        source = streams.random_units(6, len(model.tokenizer), seed=3)
        source[2] = streams.random_ids(40, len(model.tokenizer), seed=4)
        watched = Watched.run(model, parse_policy(spec), streams.as_units(source), SMALL)
        state = watched.state
        assert state.finished and state.units_read == 6 and watched.most_entries > 40
        assert any(source[2] in span.view for span in watched.spans)
        assert source[2] not in view_of(state), "and it does not stay for ever"
        assert sum(map(len, view_of(state))) <= SMALL.source
        for span in watched.spans:
            if span.logits:
                assert gap(torch.stack(span.logits), watched.expected(span)) <= TOLERANCE

    def test_what_was_written_from_sinks_stays_when_nothing_is_dropped(self, load: Load) -> None:
        model = load(boundary="token")
        source = streams.random_units(4, len(model.tokenizer), seed=3)
        source[2] = streams.random_ids(40, len(model.tokenizer), seed=4)
        policy = parse_policy("hold-n:n=0,draft=3,min_lag=-9")
        session = Session(model, policy, Sampling(), WITH_SINKS)
        session.push(streams.as_units(source)[:3])
        state = session.state
        assert state.counts["source"] > WITH_SINKS.source
        assert (state.dropped_units, state.dropped_tokens) == (0, 0)
        assert state.delays == [1, 1, 1, 2, 2, 2, 3, 3, 3]

    def test_offline_sees_the_end_of_a_source_longer_than_the_window(self, load: Load) -> None:
        model = load()
        source = units(model, 40)
        watched = Watched.run(model, Offline(), source, Window(source=14, target=99), size=99)
        state = watched.state
        kept = source[state.dropped_units :]
        assert 0 < len(kept) < 14 and set(state.delays) == {40}
        fresh = streams.feed(Session(model, Offline(), Sampling()), kept, None).state
        assert state.target == fresh.target and state.counts["source"] == fresh.counts["source"]


def test_features_are_fed_again_as_ids_are(load: Load) -> None:
    model = load()
    embed = model.model.get_input_embeddings()
    source = units(model, 20)
    with torch.no_grad():
        features = [
            Unit(features=embed(torch.tensor(unit.token_ids)), final=unit.final)
            if number % 3
            else unit
            for number, unit in enumerate(source)
        ]
    outcomes = []
    for each in (source, features):
        watched = Watched(model, Engine(model, WaitK(k=2), sampling=Sampling(), window=SMALL))
        watched.engine.open()
        watched.engine.push(0, each)
        while watched.step():
            pass
        state = watched.state
        outcomes.append((watched.tokens, state.dropped_units, state.dropped_tokens, state.tokens))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][1] > 10


def test_learned_positions_end_without_a_window_and_not_with_one(load: Load) -> None:
    model = load("gpt2", prompt=PROMPT, boundary="token")
    assert model.limit == 64
    source = units(model, 80)
    with pytest.raises(ValueError, match=r"position .* 'gpt2' has 64 of them: use .* a window"):
        streams.feed(Session(model, WaitK(k=3), Sampling()), source, 1)
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = 500
    window = Window(source=30, target=30)
    watched = Watched.run(model, WaitK(k=3), source, window)
    assert watched.state.units_read == 80 and len(watched.tokens) > 77
    for span in watched.spans:
        if span.logits:
            assert gap(torch.stack(span.logits), watched.expected(span)) <= TOLERANCE
