"""Exact match and token F1 of answers, as SQuAD v1.1 scores them (Rajpurkar et al. 2016).

Both compare normalised texts: in lower case, without ASCII punctuation, articles, and white space
beyond single spaces. In texts of scripts without spaces between words, a character is a word, and
all punctuation is left out, as MLQA has it (Lewis et al. 2020).
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from proactivellm.output.scripts import apart, has_unspaced

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """The words of a text in lower case, without punctuation and articles, with single spaces."""
    text = text.lower().translate(_PUNCTUATION)
    if has_unspaced(text):
        # `string.punctuation` is ASCII alone: SQuAD never meets other signs, MLQA does.
        text = "".join(c for c in apart(text) if unicodedata.category(c)[0] != "P")
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """100 if a prediction is one of the answers after normalisation, else 0."""
    _check(answers)
    return 100.0 * (normalise(prediction) in map(normalise, answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Harmonic mean of the precision and recall of the words, 0..100, against the best answer.

    Words count as often as they occur in both. Two texts of which normalisation leaves nothing
    agree, and one such text agrees with no other (the rule of SQuAD v2.0, which v1.1 never needs).
    """
    _check(answers)
    return max(_f1(normalise(prediction).split(), normalise(text).split()) for text in answers)


def _check(answers: Sequence[str]) -> None:
    if not answers or isinstance(answers, str):
        raise ValueError(f"give a list of at least one accepted answer, got {answers!r}")


def _f1(predicted: list[str], wanted: list[str]) -> float:
    if not predicted or not wanted:
        return 100.0 * (predicted == wanted)
    common = sum((Counter(predicted) & Counter(wanted)).values())
    return 200.0 * common / (len(predicted) + len(wanted))
