"""Misleading time, against values worked out by hand."""

from dataclasses import replace

import pytest
from tests.metrics.instances import make_log

from proactivellm.metrics.misleading import measure_misleading, misleading_time, wrong_words
from proactivellm.metrics.score import score
from proactivellm.metrics.units import TargetUnit

HOME = "he goes home now".split()


@pytest.mark.parametrize(
    ("words", "final", "wrong"),
    [
        ("he goes home now", "he goes home now", []),
        ("he goes home now", "He went home, now.", [1]),
        ("he goes home now", "", [0, 1, 2, 3]),
        ("", "he", []),
        # Of "a b" and "b a" one word is in order, and the early one is paired.
        ("a b", "b a", [1]),
        ("a x a b", "a b", [1, 2]),
        ("x y z", "y z x", [0]),  # two in order are more than one
        ("he - goes", "he goes", []),  # punctuation alone asserts nothing
        ("he goes", "he never goes", []),  # what is left out is not seen
    ],
)
def test_wrong_words_have_no_partner_in_order(words, final, wrong):
    assert wrong_words(words.split(), final.split()) == wrong


@pytest.mark.parametrize(
    ("final", "expected"),
    [
        ("he goes home now", 0.0),
        ("he went home now", 0.5),  # from the second of four units
        ("she goes home now", 0.75),
        ("he goes home later", 0.0),  # at the end of the source nobody waits any more
        ("", 0.75),
    ],
)
def test_it_misleads_from_the_first_wrong_word_to_the_end(final, expected):
    found = misleading_time(HOME, [1, 2, 3, 4], 4, final.split())
    assert found == pytest.approx(expected)


def test_of_nothing():
    assert misleading_time([], [], 4, ["he"]) == 0.0
    assert misleading_time([], [], 0, ["he"]) is None


def test_a_log_against_another():
    log = make_log(20)
    same = measure_misleading(log, log[::-1], TargetUnit("word"))
    assert same.corpus() == 0.0
    other = make_log(20, "wait-k:9", seed=3)
    scores = score(log, 50, finals=other)
    expected = measure_misleading(log, other, TargetUnit("word")).corpus()
    assert scores["misleading_time"] == expected and 0.2 < expected < 0.9
    assert scores["misleading_time_ci"] > 0 and scores["misleading_against"] == "wait-k:9"
    assert {k: v for k, v in scores.items() if "misleading" not in k} == score(log, 50)


def test_words_by_character():
    (log,) = make_log(1)
    short = replace(log, prediction="he go", prediction_length=2, delays=[1, 2], elapsed=[1.0, 2.0])
    final = replace(short, prediction="he get")
    found = measure_misleading([short], [final], TargetUnit("char"))
    assert found.corpus() == pytest.approx(1 - 2 / log.source_length)  # the o of "go"


def test_revised_output_has_none():
    log = make_log(3)
    revised = [replace(log[0], revisions=["a", "b"]), *log[1:]]
    assert measure_misleading(revised, log, TargetUnit("word")).num_defined() == 2


def test_another_source_is_refused():
    log = make_log(3)
    for finals in (log[:2], [*log[:2], replace(log[2], source="else")]):
        with pytest.raises(ValueError, match="instance 2 has no final output of the same source"):
            measure_misleading(log, finals, TargetUnit("word"))
