"""ROUGE of summaries (Lin 2004): words shared with the reference, in sequence and as n-grams.

F1, 0..100, with the words of the package rouge-score without stemming: lower case, letters and
digits. Unlike there, letters of every script count; in texts of scripts without spaces between
words, a character is a word.
"""

import re
from collections import Counter

from proactivellm.output.scripts import apart

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """What ROUGE counts of a text."""
    return _WORD.findall(apart(text.lower()))


def rouge_l(prediction: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, over the whole text (not line by line)."""
    predicted, wanted = words_of(prediction), words_of(reference)
    return _f1(_longest_common(predicted, wanted), len(predicted), len(wanted))


def rouge_n(prediction: str, reference: str, order: int) -> float:
    """F1 of the n-grams of words, each counted as often as it occurs in both."""
    predicted, wanted = (_ngrams(words_of(text), order) for text in (prediction, reference))
    return _f1((predicted & wanted).total(), predicted.total(), wanted.total())


def _ngrams(words: list[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def _longest_common(one: list[str], other: list[str]) -> int:
    """Words of the longest common subsequence: row by row of the usual table."""
    row = [0] * (len(other) + 1)
    for word in one:
        above_left = 0
        for j, candidate in enumerate(other):
            above = row[j + 1]
            row[j + 1] = above_left + 1 if word == candidate else max(above, row[j])
            above_left = above
    return row[-1]


def _f1(common: int, num_predicted: int, num_wanted: int) -> float:
    return 200.0 * common / (num_predicted + num_wanted) if common else 0.0
