"""Rows of ProntoQA and ProofWriter, as Logic-LLM (Pan et al. 2023) has them, made problems.

`{"id", "context", "question", "options": ["A) True", ...], "answer": "A"}`; ProntoQA also has
`explanation`, the sentences of its proof. ProofWriter's proofs are not in these files: they are
derived anew, and count where they lead to the answer that is given.
"""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from proactivellm.tasks.reasoning.english import parse
from proactivellm.tasks.reasoning.logic import Solved, Thoughts, as_problem, judge, parse_all
from proactivellm.tasks.reasoning.problem import Problem, sentences_of
from proactivellm.tasks.reasoning.theory import Fact, Theory

# The question comes before the context in a stream.
_ABOVE = "Based on the above information, is"


class Dropped(Exception):
    """A row that cannot be made a problem, with the reason, which is the same for many rows."""


def logic_problem(
    row: Mapping[str, Any], thoughts: Thoughts = "all", shuffle: random.Random | None = None
) -> Problem:
    """A row of either set.

    Args:
        thoughts: see `logic.as_problem`.
        shuffle: puts the sentences into a random order, in which they mean the same.

    Raises:
        Dropped: a sentence is not understood, the theory contradicts itself, what follows is not
            the answer that is given, or (ProntoQA) the given proof does not follow.
        ValueError: a field is missing, or is not what it should be.
    """
    name, context, question = (text_in(row, key) for key in ("id", "context", "question"))
    answer = option_in(row).lower()
    sentences = sentences_of(context)
    if shuffle:
        shuffle.shuffle(sentences)
    try:
        statement = parse(question.rpartition("? ")[2])
        statements = parse_all(sentences)
    except ValueError:
        raise Dropped("a sentence is not understood") from None
    if not isinstance(statement, Fact):
        raise Dropped("the question is not about a fact")
    theory = Theory(statements)
    if not theory.consistent():
        raise Dropped("the theory contradicts itself")
    solved = judge(theory, statement)
    if solved.answer != answer:
        raise Dropped("what follows is not the answer that is given")
    _check_proof(row.get("explanation", []), solved)
    return as_problem(name, question.replace(_ABOVE, "Is"), sentences, solved, thoughts)


def _check_proof(explanation: Sequence[str], solved: Solved) -> None:
    """Refuses a given proof of which a step is neither read nor derived, or another one is used."""
    try:
        told = [said for said in parse_all(explanation) if isinstance(said, Fact)]
    except ValueError:
        raise Dropped("a step of the given proof is not understood") from None
    if any(fact not in solved.theory.origins for fact in told):
        raise Dropped("a step of the given proof does not follow")
    if told and not {step.fact for step in solved.proof} <= set(told):
        raise Dropped("the given proof is another one than was derived")


def text_in(row: Mapping[str, Any], key: str) -> str:
    """A text of a row, on one line; ValueError if it is missing, empty or something else."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key}: expected a text, not {value!r:.40}")
    return " ".join(value.split())


def option_in(row: Mapping[str, Any]) -> str:
    """The answer of a row: the text of the option with its letter where there are options."""
    answer = text_in(row, "answer")
    for option in row.get("options") or ():
        if found := re.match(rf"\(?{re.escape(answer)}[).:]\s*(.+)", str(option)):
            return found[1].strip()
    return answer
