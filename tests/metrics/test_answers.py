"""Exact match and F1 against cases worked by hand."""

import pytest

from proactivellm.metrics.answers import exact_match, normalise, token_f1


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Red\tHat.", "red hat"),
        ("an apple, a day", "apple day"),
        ("Anna's", "annas"),  # punctuation goes before articles do
        ("a.n.", ""),  # ... so that what is left may be one
        ("theory an-d", "theory and"),
        ("«Köln»", "«köln»"),  # ASCII punctuation only, as in the official script
        ("  ", ""),
    ],
)
def test_normalisation(text, normal):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "f1"),
    [
        ("red hat", ["The red hat!"], 100.0, 100.0),
        ("hat red", ["red hat"], 0.0, 100.0),  # F1 knows no order
        ("a red hat", ["hat"], 0.0, 200 / 3),  # precision 1/2, recall 1
        ("hat", ["big red hat"], 0.0, 50.0),  # precision 1, recall 1/3
        ("hat hat", ["red hat"], 0.0, 50.0),  # a word counts as often as in both
        ("paris", ["rome"], 0.0, 0.0),
        ("paris", ["rome", "Paris, France", "Paris"], 100.0, 100.0),  # the best answer
        ("in paris", ["rome", "paris france", "lovely paris"], 0.0, 50.0),
        ("", [""], 100.0, 100.0),
        ("the", ["a"], 100.0, 100.0),  # nothing is left of either
        ("", ["unknown"], 0.0, 0.0),
        ("unknown", [""], 0.0, 0.0),
        ("Unknown.", ["unknown"], 100.0, 100.0),
        ("paris", ["unknown"], 0.0, 0.0),
        ("unknown", ["paris"], 0.0, 0.0),
    ],
)
def test_scores_worked_by_hand(prediction, answers, em, f1):
    assert exact_match(prediction, answers) == em
    assert token_f1(prediction, answers) == pytest.approx(f1, abs=1e-12)


@pytest.mark.parametrize("metric", [exact_match, token_f1])
@pytest.mark.parametrize("answers", [[], "paris"])
def test_answers_are_a_list_of_some(metric, answers):
    with pytest.raises(ValueError, match="at least one accepted answer, got"):
        metric("paris", answers)


def test_characters_are_words_where_there_are_no_spaces() -> None:
    assert token_f1("在北京。", ["北京"]) == pytest.approx(200 * 2 / 5)
    assert exact_match("「北京」", ["北 京。"]) == 100.0
    assert token_f1("“x”", ["x"]) == 0.0  # as SQuAD has it: only ASCII punctuation is left out
