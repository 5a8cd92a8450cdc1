"""Normalised erasure from what was shown."""

import pytest

from proactivellm.metrics.stability import erased_words, normalized_erasure


@pytest.mark.parametrize(
    "history", [[], ["a"], ["", "a", "a b", "a b c"], ["a b", "a b"], ["ein Hau", "ein Haus ."]]
)
def test_append_only_takes_nothing_back(history: list[str]) -> None:
    assert normalized_erasure(history) == 0.0


def test_words_taken_back() -> None:
    # "a b c" -> "a x" takes back b, c; "a x" -> "a x y z" nothing; the final text has 4 words.
    assert normalized_erasure(["a b c", "a x", "a x y z"]) == pytest.approx(2 / 4)
    assert erased_words(["a b c", "a x", "a x y z"]) == 2 and erased_words([]) == 0
    # Also a word that was merely cut: "a b c" -> "a b" takes back c.
    assert normalized_erasure(["a b c", "a b"]) == pytest.approx(1 / 2)
    # Everything three times over: 2 + 2 of 2.
    assert normalized_erasure(["a b", "c d", "e f"]) == pytest.approx(2.0)


def test_a_word_that_changes_takes_the_later_ones_with_it() -> None:
    # The first word differs: the later ones were shown at another place, as in Arivazhagan et al.
    assert normalized_erasure(["x b c d", "a b c d"]) == pytest.approx(1.0)


def test_nothing_left_is_undefined() -> None:
    assert normalized_erasure(["a b", ""]) is None
    assert normalized_erasure(["", ""]) == 0.0
