"""A problem that is thought through while it is read: one record, one JSON object a line.

The question comes first, then sentences, each with the thought that follows it (Tong et al. 2025,
arXiv 2510.17238). After the last sentence there may be deeper stages, then the answer. Depth 1
answers at once, depth 2 integrates before, depth 3 reflects as well.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from proactivellm.files.lines import read_lines
from proactivellm.files.replace import replacing
from proactivellm.files.toml import Strict, validated
from proactivellm.output.scripts import is_unspaced
from proactivellm.output.sentences import cut_sentences, places_in
from proactivellm.output.source_units import joined_texts
from proactivellm.tasks.item import Item

DEPTHS = (1, 2, 3)
# What stands before an answer wherever it is written out, and `metrics.reasoning` looks for.
ANSWER = "The answer is {}."
# Ends of stages in what a teacher writes, and tokens of the models: no text may hold them.
SENTENCE, THOUGHT, SKIP, INTEGRATION, REFLECTION = "<EOS>", "<EOT>", "<skip>", "<EOR>", "<EOF>"
QUESTION, END = "<EOQ>", "<EOA>"
_MARKS = (SENTENCE, THOUGHT, SKIP, INTEGRATION, REFLECTION, QUESTION, END, "<SEP>")
_EXAMPLE = (
    '{"id": "1", "question": "How many?", "sentences": ["Anna has 2.", "It rains."], '
    '"thoughts": ["Anna has 2.", ""], "answer": "2"}'
)


class Problem(Strict):
    """A question, what answers it sentence by sentence, and what is thought meanwhile.

    Raises:
        ValueError: a text has line breaks or marks of the protocol, or is empty where one is
            needed; thoughts or labels are not as many as sentences; reflection without integration.
    """

    id: str  # unique in its file
    question: str
    sentences: tuple[str, ...] = Field(min_length=1)
    # After each sentence, "" where there is nothing to think; none at all: not thought through yet.
    thoughts: tuple[str, ...] = ()
    integration: str = ""  # after the last sentence
    reflection: str = ""  # after that
    answer: str
    needed: tuple[bool, ...] = ()  # whether the answer depends on the sentence; none: not known

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wanted = {"id": self.id, "question": self.question, "answer": self.answer}
        wanted |= {f"sentences.{i}": text for i, text in enumerate(self.sentences)}
        optional = {"integration": self.integration, "reflection": self.reflection}
        optional |= {f"thoughts.{i}": text for i, text in enumerate(self.thoughts)}
        for key, text in wanted.items():
            if not text.strip():
                raise ValueError(f"{key} is empty")
        for key, text in {**wanted, **optional}.items():
            if len(text.splitlines()) > 1 or text != text.strip():
                raise ValueError(f"{key} is not one line without white space around it: {text!r}")
            if mark := next((mark for mark in _MARKS if mark in text), None):
                raise ValueError(f"{key} holds {mark}, which is a mark of the protocol")
        for key, values in (("thoughts", self.thoughts), ("needed", self.needed)):
            if values and len(values) != len(self.sentences):
                raise ValueError(
                    f"{key} has {len(values)} entries for {len(self.sentences)} sentences"
                )
        if self.reflection and not self.integration:
            raise ValueError("reflection comes after integration, which is empty")
        return self

    def at_depth(self, depth: int) -> "Problem":
        """The same without the stages beyond a depth; ValueError if it is none of `DEPTHS`."""
        if depth not in DEPTHS:
            raise ValueError(f"depth {depth}: give one of {', '.join(map(str, DEPTHS))}")
        gone = ("integration", "reflection")[depth - 1 :]
        return self.model_copy(update=dict.fromkeys(gone, ""))

    @property
    def stages(self) -> tuple[str, str]:
        """The deep stages in order; "" where there is none."""
        return self.integration, self.reflection

    @property
    def written(self) -> str:
        """All thoughts and stages in order, as one text."""
        return " ".join(filter(None, (*self.thoughts, *self.stages)))

    @property
    def needed_units(self) -> list[bool]:
        """The labels by unit, as a model that thinks cuts the sentences; none: not known.

        A unit is needed if a needed sentence ends in it.
        """
        if not self.needed:
            return []
        units = cut_sentences(joined_texts(self.sentences))
        places = places_in(self.sentences, units)
        wanted = {place for place, label in zip(places, self.needed, strict=True) if label}
        return [place in wanted for place in range(len(units))]

    def item(self, place: str = "") -> Item:
        """As an item: the question before the sentences; all that is written, then the answer."""
        source = f"{self.question} {joined_texts(self.sentences)}"
        target = " ".join(filter(None, (self.written, ANSWER.format(self.answer))))
        return Item(_line(source), _line(target), (self.answer,), place=place, problem=self)


def read_problems(path: str | Path) -> list[Problem]:
    """Reads a file of problems, maybe `.gz`; blank lines are left out.

    Raises:
        ValueError: the file cannot be read or holds none, a line does not fit, or an id occurs
            twice; names the line and the field.
    """
    return list(_problems(path))


def read_problem_items(path: str | Path) -> Iterator[Item]:
    """The problems of a file as items, as they are asked for; ValueError as `read_problems`."""
    for problem in _problems(path):
        yield problem.item(f"{path}, problem {problem.id!r}")


def _problems(path: str | Path) -> Iterator[Problem]:
    places: dict[str, int] = {}
    for number, record in read_records(path):
        where = f"{path}, line {number}"
        problem = validated(record, Problem, where)
        if (first := places.setdefault(problem.id, number)) != number:
            raise ValueError(f"{where}: id: {problem.id!r} is already that of line {first}")
        yield problem
    if not places:
        raise ValueError(f"{path}: holds no problem; a line of it is such as {_EXAMPLE}")


def read_records(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with their lines, from 1; ValueError if a line is none."""
    for number, text in enumerate(read_lines(path), start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number}: {text[:40]!r} is no JSON object")
        yield number, record


def write_problems(path: str | Path, problems: Iterable[Problem]) -> None:
    """Replaces a file by these problems; an OSError names it."""
    with replacing(path) as new, open(new, "w", encoding="utf-8") as file:
        file.writelines(line_of(problem) for problem in problems)


def line_of(problem: Problem) -> str:
    """A problem as a line of its file; what is empty is left out."""
    record = problem.model_dump(exclude_defaults=True)
    return json.dumps(record, ensure_ascii=False) + "\n"


_STOPS = re.compile(r"""(?<=[.!?])["')]*\s+(?=["'(]*[A-Z0-9$])""")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|No|approx|[A-Z])|\b[ap]\.m)\.$")


def sentences_of(text: str) -> list[str]:
    """Cuts a text after full stops, question and exclamation marks; not after titles, initials."""
    if is_unspaced([text]):
        return cut_sentences(text)
    sentences: list[str] = []
    begin = 0
    for stop in _STOPS.finditer(text):
        piece = text[begin : stop.end()].strip()
        if not _ABBREVIATION.search(piece):
            sentences.append(piece)
            begin = stop.end()
    return [_line(piece) for piece in [*sentences, text[begin:]] if piece.strip()]


def _line(text: str) -> str:
    return " ".join(text.split())
