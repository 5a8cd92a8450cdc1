"""Answers to problems that were thought through: whether they are right.

An answer is what follows "The answer is", the last "####" or "\\boxed{" in a text, or the whole
text. Numbers are compared as numbers, "true" is "yes" and "maybe" is "unknown"; other answers have
to be the same after the normalisation of `metrics.answers`.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation

from proactivellm.metrics.answers import exact_match

_MARKED = re.compile(r"(?:\banswer is:?|####|\\boxed\{)\s*(.*?)(?=\}|[.!?](?:\s|$|<)|\n|<|$)", re.I)
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?|[-+]?\.\d+")
_VERDICTS: Mapping[str, str] = {
    **dict.fromkeys(("yes", "true"), "yes"),
    **dict.fromkeys(("no", "false"), "no"),
    **dict.fromkeys(("unknown", "uncertain", "maybe"), "unknown"),
}
_WORD = re.compile(r"[a-z]+")


def answer_in(text: str) -> str:
    """The answer that a text gives, without what leads to it."""
    marked = _MARKED.findall(text)
    return str(marked[-1]).strip() if marked else text.strip()


def is_right(prediction: str, answers: Sequence[str]) -> float:
    """100 if a prediction gives one of the answers, else 0.

    Of several numbers or verdicts in an answer, the last is the one that is given.

    Raises:
        ValueError: there are no answers.
    """
    given = answer_in(prediction)
    right = exact_match(given, answers) > 0
    for answer in answers:
        if (number := _number(answer)) is not None:
            found = [_number(text) for text in _NUMBER.findall(given)]
            right |= bool(found) and found[-1] == number
        elif verdict := _VERDICTS.get(answer.strip().lower()):
            said = [_VERDICTS[w] for w in _WORD.findall(given.lower()) if w in _VERDICTS]
            right |= bool(said) and said[-1] == verdict
    return 100.0 * right


def _number(text: str) -> Decimal | None:
    """The value of a text that is a number, with or without a currency or a percent sign."""
    try:
        return Decimal(text.strip().strip("$€£% ").replace(",", ""))
    except InvalidOperation:
        return None
