"""Problems that were thought through: whether the answer is right, and what the thinking cost.

An answer is what follows "The answer is", the last "####" or "\\boxed{" in a text, or the whole
text. Numbers are compared as numbers, "true" is "yes" and "maybe" is "unknown"; other answers have
to be the same after the normalisation of `metrics.answers`.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

import numpy as np

from proactivellm.metrics.answers import exact_match
from proactivellm.metrics.bootstrap import Statistics, mean, ratio

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


class Thinking(NamedTuple):
    """What was written for one problem, stage by stage; None is what was not recorded."""

    prediction: str  # the answer, with or without what leads to it
    answers: Sequence[str]  # all that are accepted
    thought_tokens: Sequence[int]  # after each sentence; 0 where it was skipped
    integration_tokens: int = 0
    reflection_tokens: int = 0
    answer_tokens: int = 0
    needed: Sequence[bool] = ()  # whether the answer depends on each sentence; none: not known
    tokens_waited: float | None = None  # source tokens read before the first token was written
    answer_delay_s: float | None = None  # from the end of the source to the end of the answer


def measure_thinking(problems: Sequence[Thinking]) -> dict[str, Statistics]:
    """Statistics of accuracy, of tokens by stage, of delays, and of when it was thought.

    Returns:
        By name: `accuracy` (%); means of `thought_tokens`, `integration_tokens`,
        `reflection_tokens`, `answer_tokens`, of all `tokens` and of `late_tokens`, those after the
        last sentence; `think_rate`, the share of the sentences with a thought, where it is known
        which are needed also `think_rate_needed` and `think_rate_filler`; `tokens_waited` and
        `answer_delay_s`, means over the problems that tell them.

    Raises:
        ValueError: a problem has labels that are not as many as its sentences.
    """
    for number, each in enumerate(problems):
        if each.needed and len(each.needed) != len(each.thought_tokens):
            raise ValueError(
                f"problem {number}: {len(each.needed)} labels for {len(each.thought_tokens)} "
                "sentences"
            )
    stages = [(p.integration_tokens, p.reflection_tokens, p.answer_tokens) for p in problems]
    return {
        "accuracy": mean([is_right(p.prediction, p.answers) for p in problems]),
        "thought_tokens": mean([float(sum(p.thought_tokens)) for p in problems]),
        "integration_tokens": mean([float(p.integration_tokens) for p in problems]),
        "reflection_tokens": mean([float(p.reflection_tokens) for p in problems]),
        "answer_tokens": mean([float(p.answer_tokens) for p in problems]),
        "tokens": mean(
            [float(sum(p.thought_tokens) + sum(s)) for p, s in zip(problems, stages, strict=True)]
        ),
        "late_tokens": mean(
            [
                float(sum(p.thought_tokens[-1:]) + sum(s))
                for p, s in zip(problems, stages, strict=True)
            ]
        ),
        "think_rate": _rate(problems, None),
        "think_rate_needed": _rate(problems, True),
        "think_rate_filler": _rate(problems, False),
        "tokens_waited": mean([p.tokens_waited for p in problems]),
        "answer_delay_s": mean([p.answer_delay_s for p in problems]),
    }


def _rate(problems: Sequence[Thinking], needed: bool | None) -> Statistics:
    """Sentences with a thought over sentences, of the corpus; of those needed, or not, alone."""
    counts = []
    for problem in problems:
        tokens = problem.thought_tokens
        if needed is not None:
            labelled = zip(tokens, problem.needed, strict=False)
            tokens = [count for count, label in labelled if label == needed]
        counts.append((sum(count > 0 for count in tokens), len(tokens)))
    return Statistics(np.array(counts, np.float64).reshape(-1, 2), ratio)
