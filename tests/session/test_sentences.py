"""wait-k that restarts: schedules over sentences, however units are pushed."""

import itertools
from pathlib import Path

import pytest
from tests.laws import streams
from tests.laws.streams import END, Recorder
from tests.models import save_tiny

from proactivellm.core.unit import Unit
from proactivellm.policy.base import Policy
from proactivellm.policy.fixed import SentenceWaitK, WaitK
from proactivellm.session.events import Read
from proactivellm.session.sentences import Sentences
from proactivellm.session.session import Session


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture
def model(folder: Path) -> Recorder:
    return streams.load(folder)


def delays_of_words(
    model: Recorder, policy: Policy, source: str, target: str, step: int | None
) -> list[int]:
    """Units read before each word of a target that the model is forced to write."""
    ids = [*model.tokenizer.encode(target, add_special_tokens=False), END]
    model.forced = {0: ids}
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = len(ids)
    units = [Unit(text=word, token_ids=(5 + i,)) for i, word in enumerate(source.split())]
    session = streams.feed(Session(model, policy), [*units, Unit.end()], step)
    assert session.text == target
    starts = [i == 0 or model.word_starts[token] for i, token in enumerate(ids[:-1])]
    return list(itertools.compress(session.state.delays, starts))


@pytest.mark.parametrize("step", [1, 2, None])
@pytest.mark.parametrize(
    ("k", "source", "target", "expected"),
    [
        # A sentence is written to its end once its source has ended; the next one waits anew.
        (2, "a b c. d e f.", "u v w. x y z.", [2, 3, 3, 5, 6, 6]),
        (2, "a b c d. e f g.", "u v. x y z.", [2, 3, 6, 7, 7]),
        # A source sentence shorter than k.
        (3, "a. b c d e.", "u v. x y.", [1, 1, 4, 5]),
        # A target that ends a sentence early: the next one waits for the end of its source.
        (1, "a b c. d e f.", "u. x y z.", [1, 4, 5, 6]),
        # Closing quotes belong to the sentence; one without a mark is like any wait-k.
        (1, "a 'b.' c d", "u 'v.' x y", [1, 2, 3, 4]),
        (2, "a b c d", "u v w", [2, 3, 4]),
        (1, "a b c d", "u. v. w.", [1, 4, 4]),
    ],
)
def test_the_count_starts_anew_at_sentence_ends(model, k, source, target, expected, step):
    found = delays_of_words(model, SentenceWaitK(k=k), source, target, step)
    assert found == expected


@pytest.mark.parametrize("step", [1, None])
def test_without_restart_sentences_make_no_difference(model, step):
    found = delays_of_words(model, WaitK(k=2), "a b c. d e f.", "u v w. x y z.", step)
    assert found == [2, 3, 4, 5, 6, 6]


def test_with_a_stride(model):
    policy = SentenceWaitK(k=2, stride=2)
    found = delays_of_words(model, policy, "a b c d e. f g h i.", "u v w. x y.", None)
    assert found == [2, 4, 5, 7, 9]


def test_a_clone_goes_on_with_its_sentence(model):
    ids = [*model.tokenizer.encode("u v w. x y z.", add_special_tokens=False), END]
    model.forced = {0: ids}
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = len(ids)
    units = [Unit(text=word, token_ids=(9,)) for word in "a b c. d e f.".split()]
    session = Session(model, SentenceWaitK(k=2))
    session.push(units[:4])
    clone = session.clone()
    assert (
        clone.state.sentences
        == session.state.sentences
        == Sentences(heard=3, ended=True, following=3)
    )
    for each in (session, clone):
        each.push(units[4:])
        each.close()
    assert clone.state.delays == session.state.delays


def test_a_held_end_ends_a_sentence_whose_source_has_ended(model):
    """The second "word" is the end of the target, which is held while there is source."""
    ids = [*model.tokenizer.encode("u", add_special_tokens=False), END]
    model.forced = {0: ids}
    session = Session(model, SentenceWaitK(k=2))
    session.push([Unit(text=word, token_ids=(9,)) for word in ("a", "b.", "c")])
    assert session.state.sentences == Sentences(heard=2, ended=True, following=2)
    model.forced = {0: [ids[0], ids[0], END]}
    reads = [
        e.unit.text for e in session.advance(Unit(text="d", token_ids=(9,))) if isinstance(e, Read)
    ]
    assert reads == ["d"]


class TestSentences:
    def test_several_source_sentences_may_be_one_target_sentence(self):
        both = Sentences(heard=2).hear(4)
        assert both.write(ended=True) == Sentences(heard=4, ended=True, following=4)

    def test_the_end_counts_when_it_was_written(self):
        ended = Sentences(heard=2).write(ended=True).hear(4)
        assert ended.begin_word(5) == Sentences(units=2, words=5, heard=4)

    def test_a_word_that_goes_on_takes_its_end_back(self):
        assert Sentences(heard=2).write(ended=True).write(ended=False) == Sentences(heard=2)
