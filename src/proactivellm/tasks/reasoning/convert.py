"""Files of other data sets made problems, with what was dropped and why."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from proactivellm.tasks.reasoning.gsm8k import gsm8k_problem
from proactivellm.tasks.reasoning.logic import Thoughts
from proactivellm.tasks.reasoning.problem import Problem, read_records, sentences_of
from proactivellm.tasks.reasoning.rows import Dropped, logic_problem, option_in, text_in

Kind = Literal["gsm8k", "prontoqa", "proofwriter", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Converted(NamedTuple):
    """What became of a file."""

    problems: list[Problem]
    dropped: Counter[str]  # by reason

    def lines(self) -> list[str]:
        """As text: how many were made, then a line for each reason."""
        total = len(self.problems) + self.dropped.total()
        reasons = [f"dropped {count}: {reason}" for reason, count in self.dropped.most_common()]
        return [f"{len(self.problems)} of {total} converted", *reasons]


def convert(
    path: str, kind: Kind, thoughts: Thoughts = "all", shuffle: int | None = None
) -> Converted:
    """Reads a file, maybe `.gz`, of one row a line.

    Args:
        kind: "gsm8k" as in `tasks.reasoning.gsm8k`, "prontoqa" and "proofwriter" as in
            `tasks.reasoning.rows`; "text": rows with `question`, `context` and `answer` (and
            `options`, if the answer is a letter), for a teacher, without thoughts.
        thoughts: of the two sets of logic: "all" that follows, or the steps of the proof alone.
        shuffle: seed of a random order of their sentences, which mean the same in any.

    Raises:
        ValueError: the file cannot be read, or a row is not of this kind; names the line.
    """
    make: Mapping[Kind, Callable[[Mapping[str, Any], int], Problem]] = {
        "gsm8k": lambda row, number: gsm8k_problem(row, f"gsm8k-{number}"),
        "prontoqa": lambda row, number: logic_problem(row, thoughts, _order(shuffle, number)),
        "proofwriter": lambda row, number: logic_problem(row, thoughts, _order(shuffle, number)),
        "text": _text_problem,
    }
    converted = Converted([], Counter())
    for number, row in read_records(path):
        try:
            converted.problems.append(make[kind](row, number))
        except Dropped as reason:
            converted.dropped[str(reason)] += 1
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}; is it a file of {kind}?") from None
    return converted


def _order(seed: int | None, number: int) -> random.Random | None:
    return None if seed is None else random.Random(f"order {seed} {number}")


def _text_problem(row: Mapping[str, Any], number: int) -> Problem:
    """A row with a text to read; without `context`, the question's last sentence asks."""
    question = text_in(row, "question")
    if "context" in row:
        sentences = sentences_of(text_in(row, "context"))
    else:
        *sentences, question = sentences_of(question)
    if not sentences:
        raise Dropped("there is no sentence beside the question")
    return Problem(
        id=str(row.get("id", number)),
        question=question.replace("Based on the above information, is", "Is"),
        sentences=tuple(sentences),
        answer=option_in(row),
    )
