"""The READ/WRITE loop of one stream: boundaries, ends, limits, sampling, drafts."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import END, Recorder
from tests.models import save_tiny
from transformers import GenerationConfig

from proactivellm.core.unit import Unit
from proactivellm.policy.base import Policy
from proactivellm.policy.evidence import Seen, entropy
from proactivellm.policy.fixed import Fixed, Offline, WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session import outcome
from proactivellm.session.engine import Engine
from proactivellm.session.events import End, Ending, Write
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling, sample
from proactivellm.session.session import Session
from proactivellm.session.state import SessionState


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="module")
def folder_of_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer most of whose tokens begin a word."""
    return save_tiny("llama", tmp_path_factory.mktemp("llama"), "word_piece")


@pytest.fixture
def model(folder: Path) -> Recorder:
    """Decisions at word boundaries; every test has its own generation settings."""
    return streams.load(folder)


def units(model: Recorder, count: int, seed: int = 1, final: bool = True) -> list[Unit]:
    return streams.as_units(streams.random_units(count, len(model.tokenizer), seed), final)


def words(model: Recorder, text: str) -> list[int]:
    """A target that ends."""
    return [*model.tokenizer.encode(text, add_special_tokens=False), END]


def force(model: Recorder, target: Sequence[int]) -> None:
    model.forced = {0: target}
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = len(target)


def written(state: SessionState) -> list[int]:
    return state.target[state.num_head :]


def word_numbers(model: Recorder, target: Sequence[int]) -> list[int]:
    """The number of each token's word, from 1; the model may have more rows than tokens."""
    starts = model.word_starts
    begins = [i == 0 or (t < len(starts) and starts[t]) for i, t in enumerate(target)]
    return list(itertools.accumulate(map(int, begins)))


class OncePerUnit(Policy):
    """Writes at the first probe after each unit, and wants to READ at all others."""

    name = "once-per-unit"

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def writes(self, seen: Seen) -> torch.Tensor:
        read = int(seen.units_read_B)
        first = read not in self.seen
        self.seen.add(read)
        return torch.tensor([first])


class TestBoundaries:
    TEXT = "The window of larger streets"

    def test_words_are_written_whole_and_wait_k_counts_words(self, model: Recorder) -> None:
        target = words(model, self.TEXT)
        word = word_numbers(model, target[:-1])
        assert word[-1] == 5 < len(word)
        force(model, target)
        session = Session(model, WaitK(k=2))
        state = streams.feed(session, units(model, 6), 1).state
        assert state.delays == [*(2 + n - 1 for n in word), 6]
        assert state.words == 5 and session.text == self.TEXT

    def test_tokens_are_words_where_boundaries_are_tokens(self, folder: Path) -> None:
        model = streams.load(folder, boundary="token")
        target = words(model, self.TEXT)
        force(model, target)
        count = len(target)
        state = streams.feed(Session(model, WaitK(k=2)), units(model, count), None).state
        assert state.delays == [*range(2, count + 1), count]
        assert state.words == len(target) - 1

    def test_a_fixed_trace_is_per_word_and_the_rest_waits_for_the_end(
        self, model: Recorder
    ) -> None:
        target = words(model, self.TEXT)
        force(model, target)
        state = streams.feed(Session(model, Fixed(trace=(1, 4, 4))), units(model, 6), 2).state
        g_by_word = [1, 4, 4, 6, 6]
        g = [g_by_word[word - 1] for word in word_numbers(model, target[:-1])]
        assert state.delays == [*g, 6]

    def test_a_word_is_open_until_the_next_one_begins(self, model: Recorder) -> None:
        """Half a word is no reason to READ, its end is only known by the token after it."""
        target = words(model, "Larger streets")
        first = [model.word_starts[token] for token in target].index(True, 1)
        assert first > 1
        force(model, target)
        session = Session(model, WaitK(k=1))
        writes = session.push(units(model, 3, final=False)[:1])
        assert [write.token_id for write in writes] == target[:first]
        assert session.state.wants_read and session.state.at_boundary
        assert session.text == "Larger"

    def test_punctuation_inside_a_word_is_decided_on_but_is_no_word(self, model: Recorder) -> None:
        target = words(model, "dog, cat")
        comma = target.index(model.tokenizer.encode(",", add_special_tokens=False)[0])
        assert model.decision_points[target[comma]] and not model.word_starts[target[comma]]
        word = word_numbers(model, target[:-1])
        force(model, target)
        state = streams.feed(Session(model, WaitK(k=1)), units(model, 2), 1).state
        assert state.words == 2 == word[-1]
        assert state.delays == [*word, 2], "it belongs to a word that wait-k has allowed"
        state = streams.feed(Session(model, OncePerUnit()), units(model, 4), 1).state
        assert state.words == 2
        assert state.delays == [*([1] * comma), 2, *([3] * (len(target) - comma - 2)), 4]


class TestEnds:
    def test_no_end_before_the_end_of_the_source(self, folder: Path) -> None:
        """However much the model wants it."""
        model = streams.load(folder, boundary="token")
        bias = torch.zeros(len(model.tokenizer) + 11)
        bias[END] = 1e4
        layer = model.model.get_output_embeddings()
        layer.register_forward_hook(lambda module, args, output: output + bias)
        for policy in (WaitK(k=1), parse_policy("entropy:5.5"), parse_policy("attention:0.4")):
            session = Session(model, policy)
            for unit in units(model, 6, final=False):
                assert session.push(unit) == []
            assert END not in written(session.state) and not session.state.finished
            assert not written(session.state)  # it READs, and nothing stands in for the end
            assert [write.token_id for write in session.close()] == [END]
            assert session.state.finished and session.state.delays[-1] == 6

    def test_every_end_token_counts(self, model: Recorder) -> None:
        config = model.model.generation_config
        assert config is not None
        config.eos_token_id = [END, 77]
        model.forced = {0: [50, 77]}
        state = streams.feed(Session(model, Offline()), units(model, 3), None).state
        assert state.finished and not state.truncated and written(state) == [50, 77]

    def test_the_token_limit_of_the_generation_settings(self, model: Recorder) -> None:
        limit = 7
        assert model.model.generation_config is not None
        model.model.generation_config.max_new_tokens = limit
        model.forced = {0: [50] * 99}
        for policy in (Offline(), WaitK(k=1), parse_policy("hold-n:0")):
            session = Session(model, policy)
            events = [event for unit in units(model, 12) for event in session.advance(unit)]
            writes = [event for event in events if isinstance(event, Write)]
            state = session.state
            assert state.truncated and state.finished and written(state) == [50] * limit
            assert events[-1] == End(lane=0, how=Ending.LENGTH_LIMIT)
            assert [write.token_id for write in writes if write.token_id] == [50] * limit
            assert len(state.delays) == limit
            assert "".join(write.text for write in writes) == session.text

    def test_without_settings_the_limit_grows_with_the_source_read(
        self, model: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outcome, "TARGET_ALLOWANCE", (3, 2))
        assert model.model.generation_config is not None
        model.model.generation_config.max_new_tokens = None
        model.forced = {0: [50] * 999}
        source = units(model, 5, final=False)
        session = Session(model, WaitK(k=1))
        for unit in source:
            session.push(unit)
            assert session.state.num_written == 3 + 2 * session.state.counts["source"]
        session.close()
        state = session.state
        assert state.truncated and state.num_written == 3 + 2 * state.counts["source"]
        assert all(
            3 + 2 * state.counts["source"] >= g for g in state.delays
        )  # and READ went on to the end
        assert state.units_read == 5

    @pytest.mark.parametrize("spec", ["wait-k:1", "offline", "entropy:4", "local-agreement:2"])
    def test_an_empty_source_has_an_empty_target(self, model: Recorder, spec: str) -> None:
        session = Session(model, parse_policy(spec))
        ends = list(session.advance(Unit.end()))
        assert ends == [End(lane=0, how=Ending.EMPTY_SOURCE)] and session.state.source_finished
        assert session.text == "" and session.close() == []
        assert session.state.finished and session.state.delays == []
        assert session.state.forwards == 0
        with pytest.raises(ValueError, match="source is closed"):
            session.push(Unit.end())

    def test_a_closed_source_takes_no_more(self, model: Recorder) -> None:
        session = Session(model, WaitK(k=1))
        source = units(model, 3)
        session.push(source)
        assert session.close() == [], "idempotent"
        for late in (source[0], Unit.end(), source):
            with pytest.raises(ValueError, match="its final unit was already pushed"):
                session.push(late)
        other = Session(model, WaitK(k=9))
        other.push(units(model, 2, final=False))
        assert other.state.delays == [] and other.close()
        assert other.close() == []

    def test_nothing_pushed_nothing_done(self, model: Recorder) -> None:
        session = Session(model, WaitK(k=1))
        assert session.push([]) == [] and session.state.forwards == 0

    def test_writes_come_one_forward_at_a_time(self, model: Recorder) -> None:
        force(model, words(model, "The window of"))
        session = Session(model, Offline())
        events = session.advance(units(model, 4))
        assert [next(events).units_read for _ in range(4)] == [1, 2, 3, 4]
        for count, event in enumerate(events, start=1):
            if isinstance(event, Write):
                assert session.state.num_written == count
                assert (event.lane, event.units_read) == (0, 4)
        assert event == End(lane=0, how=Ending.END_TOKEN) and session.text == "The window of"


class TestSampling:
    def run(self, model: Recorder, sampling: Sampling | None = None) -> list[int]:
        session = Session(model, WaitK(k=1), sampling)
        return written(streams.feed(session, units(model, 5), 1).state)

    def test_generation_settings_are_honoured(self, model: Recorder) -> None:
        greedy = self.run(model)
        assert greedy == self.run(model, Sampling())
        for config, sampling in (
            (
                GenerationConfig(do_sample=True, temperature=1.5, top_k=9),
                Sampling(temperature=1.5, top_k=9),
            ),
            (
                GenerationConfig(do_sample=True, top_p=0.8, repetition_penalty=1.4),
                Sampling(temperature=1.0, top_p=0.8, top_k=50, repetition_penalty=1.4),
            ),
            (GenerationConfig(repetition_penalty=3.0), Sampling(repetition_penalty=3.0)),
        ):
            config.max_new_tokens, config.eos_token_id = streams.MAX_TOKENS, END
            model.model.generation_config = config
            tokens = self.run(model)
            assert tokens == self.run(model, sampling) != greedy

    def test_seeds_give_other_tokens_and_the_same_ones_again(self, model: Recorder) -> None:
        outcomes = [self.run(model, Sampling(temperature=1.5, seed=seed)) for seed in (1, 2, 3, 1)]
        assert outcomes[0] == outcomes[3] and len({tuple(tokens) for tokens in outcomes}) == 3

    def test_only_what_was_read_and_written_is_penalised(
        self, model: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[set[int]] = []

        def spy(*args: object, **kwargs: object) -> torch.Tensor:
            seen.extend(set(row.tolist()) for row in args[3])  # type: ignore[attr-defined]
            return sample(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(outcome, "sample", spy)
        source = units(model, 4)
        session = Session(model, WaitK(k=2), Sampling(repetition_penalty=1.5))
        session.push(source)
        prompt = model.prompt
        read = [*prompt.source_head, *source[0].token_ids, *source[1].token_ids]
        assert seen[0] == {*read, *prompt.target_head}
        everything = [token for unit in source for token in unit.token_ids]
        last = [*prompt.source_head, *everything, *prompt.source_tail]
        written = session.state.target
        assert {*last, *written[:-1]} <= seen[-1] <= {*last, *written}


DRAFTING = (
    "local-agreement:n=2,draft=5",
    "local-agreement:n=3,draft=4",
    "hold-n:n=2,draft=5",
    "hold-n:n=0,draft=3",
    "local-agreement:n=2,draft=4,max_lag=3",
    "hold-n:n=3,draft=5,min_lag=2,max_lag=4",
)


class TestDrafts:
    def run(
        self, model: Recorder, policy: Policy, size: int = 1
    ) -> tuple[Session, list[tuple[list[Write], bool]]]:
        """Checks after every push that what was written stays.

        Returns the session and, per push, its writes and whether the draft ended there.
        """
        session = Session(model, policy)
        source = units(model, 9, seed=8)
        history: list[tuple[list[Write], bool]] = []
        for chunk in streams.chunks(source, size):
            before, text = written(session.state), session.text
            writes = session.push(chunk)
            newest = model.logits.get((0, session.state.num_written))
            history.append((writes, newest is not None and int(newest.argmax()) == END))
            assert written(session.state)[: len(before)] == before
            assert session.text.startswith(text)
            assert not session.state.draft
        assert session.state.finished
        return session, history

    @pytest.mark.parametrize("boundary", ["word", "token"])
    @pytest.mark.parametrize("spec", DRAFTING)
    def test_committed_words_are_whole_and_stay(
        self, folder_of_words: Path, spec: str, boundary: str
    ) -> None:
        model = streams.load(folder_of_words, boundary=boundary)
        policy = parse_policy(spec)
        session, history = self.run(model, policy)
        g, target = session.state.delays, written(session.state)
        word = word_numbers(model, target) if boundary == "word" else range(1, 99)
        num_written = 0
        for read, (writes, ended) in enumerate(history, start=1):
            assert all(write.units_read == read for write in writes)
            num_written += sum(write.token_id is not None for write in writes)
            words_written = word[num_written - 1] if num_written else 0
            if read < 9 and policy.max_lag:
                full = num_written + policy.lookahead >= streams.MAX_TOKENS
                assert words_written > read - policy.max_lag or full or ended
            if read < 9 and writes:
                assert words_written <= read - policy.min_lag + 1
        assert g == sorted(g) and min(g) < 9, "something should be written before the end"

    @pytest.mark.parametrize("spec", DRAFTING)
    def test_the_same_tokens_come_under_the_trace_alone(
        self, folder_of_words: Path, spec: str
    ) -> None:
        """Drafts leave nothing behind: what was drafted and dropped never was."""
        model = streams.load(folder_of_words)
        state = self.run(model, parse_policy(spec), size=2)[0].state
        by_token = streams.load(folder_of_words, boundary="token")
        replayed = Session(by_token, Fixed(trace=tuple(state.delays)))
        streams.feed(replayed, units(model, 9, seed=8), 1)
        assert written(replayed.state) == written(state)
        assert replayed.state.delays == state.delays
        assert replayed.text == state.detokenizer.text

    def test_local_agreement_commits_what_two_drafts_share(self, folder: Path) -> None:
        """By hand: the draft after each unit, and what is written of it."""
        model = streams.load(folder)
        encode = model.tokenizer.encode
        drafts = ["The dog", "The dog sleeps on", "The dog sleeps with", "The dog sleeps with it"]
        wanted = [[*encode(text, add_special_tokens=False), END] for text in drafts]
        session = Session(model, parse_policy("local-agreement:n=2,draft=30"))
        source = units(model, 4)
        texts = []
        for unit, target in zip(source, wanted, strict=True):
            force(model, target)
            session.push(unit)
            texts.append(session.text)
        assert texts == ["", "The dog", "The dog sleeps", "The dog sleeps with it"]
        assert session.state.finished and not session.state.truncated

    def test_hold_n_keeps_the_last_tokens_back(self, folder: Path) -> None:
        model = streams.load(folder, boundary="token")
        target = words(model, "The dog sleeps on the sofa")
        force(model, target)
        session = Session(model, parse_policy("hold-n:n=2,draft=4,min_lag=-99"))
        for count, unit in enumerate(units(model, 3), start=1):
            session.push(unit)
            if count < 3:
                assert written(session.state) == target[: 2 * count]
        assert written(session.state) == target

    def test_every_token_is_whole_where_boundaries_are_tokens(self, folder: Path) -> None:
        model = streams.load(folder, boundary="token")
        target = words(model, "The dog sleeps")
        force(model, target)
        session = Session(model, parse_policy("hold-n:n=0,draft=1"))
        for count, unit in enumerate(units(model, len(target)), start=1):
            session.push(unit)
            assert written(session.state) == target[:count]

    def test_max_lag_forces_a_word_that_is_longer_than_the_draft(self, folder: Path) -> None:
        model = streams.load(folder)
        target = words(model, "übermäßig leer stehen")
        first = [model.word_starts[token] for token in target].index(True, 1)
        assert first > 3
        force(model, target)
        session = Session(model, parse_policy("local-agreement:n=2,draft=2,max_lag=2"))
        texts = []
        for unit in units(model, 4):
            session.push(unit)
            texts.append(session.text)
        assert texts == ["", "übermäßig", "übermäßig leer", "übermäßig leer stehen"]


def test_an_engine_has_at_least_one_lane_and_no_more_streams_than_lanes(model: Recorder) -> None:
    with pytest.raises(ValueError, match="streams=0: give at least 1"):
        Engine(model, Offline(), Limits(streams=0))
    engine = Engine(model, Offline(), Limits(streams=2))
    assert (engine.open(), engine.open()) == (0, 1)
    with pytest.raises(RuntimeError, match="all 2 lanes are in use; release one first"):
        engine.open()
    engine.release(0)
    with pytest.raises(RuntimeError, match="no stream is open in lane 0"):
        engine.state(0)
    assert engine.open() == 0 and engine.step() is None and engine.forwards == 0


def test_entropy_by_hand() -> None:
    probs = torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(entropy(probs), torch.tensor([1.5 * 0.693147, 0.0]))
    top = entropy(probs, top=2)
    expected = torch.tensor([0.636514, 0.0])  # of (2/3, 1/3)
    torch.testing.assert_close(top, expected)
    torch.testing.assert_close(entropy(probs, top=9), entropy(probs))
