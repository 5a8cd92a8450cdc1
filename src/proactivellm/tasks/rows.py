"""Rows of data sets, as the hub has them, made items: translation, summary, questions, choices.

What answers comes last in a source: first the question, and the options of a choice, so that the
model knows what it reads for and can answer before the end.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from proactivellm.tasks.item import Item
from proactivellm.tasks.lookup import UNKNOWN

RowTask = Literal["translation", "qa", "choice", "summary"]
# What each task reads, and the column it has in the data set named. A dot leads into a column that
# holds columns; a translation's depend on the languages, and have to be given.
COLUMNS: Mapping[RowTask, Mapping[str, str]] = {
    "translation": {"source": "", "target": ""},  # IWSLT17, WMT: "translation.en"
    "summary": {"source": "dialogue", "target": "summary"},  # DialogSum
    "qa": {"question": "question", "context": "context", "answers": "answers.text"},  # SQuAD
    "choice": {  # MCTest
        **{"question": "question", "context": "story"},
        **{"options": "answer_options", "answer": "answer"},
    },
}


def check_columns(task: RowTask, columns: Mapping[str, str]) -> None:
    """Refuses columns that a task does not read, and the lack of those that it has to be told."""
    known = COLUMNS[task]
    if unknown := sorted(set(columns) - set(known)):
        raise ValueError(f"columns: {task} reads {', '.join(known)}, not {unknown[0]!r}")
    if missing := [name for name, column in {**known, **columns}.items() if not column]:
        raise ValueError(
            f"columns: say in which column {' and '.join(missing)} of a {task} lie, such as "
            '{ source = "translation.de", target = "translation.en" }'
        )


def row_item(
    row: Mapping[str, Any], task: RowTask, columns: Mapping[str, str], place: str
) -> Item | None:
    """The item of a row; None where nothing is to be read or to be written.

    Args:
        columns: in place of those of COLUMNS.
        place: of the row, for messages.

    Raises:
        ValueError: a column is missing, or holds something else; it names the row.
    """
    try:
        cells = {name: _cell(row, column) for name, column in {**COLUMNS[task], **columns}.items()}
        item = _MAKE[task](cells)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return item._replace(place=place) if item.source and item.target else None


def _pair(cells: Mapping[str, Any]) -> Item:
    return Item(_line(cells["source"]), _line(cells["target"]))


def _question(cells: Mapping[str, Any]) -> Item:
    """SQuAD of either version: without an answer, the target is "unknown"."""
    texts = cells["answers"]
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, Sequence):
        raise ValueError(f"answers are a text or a list of texts, not {str(texts)[:40]!r}")
    answers = tuple(dict.fromkeys(filter(None, map(_line, texts)))) or (UNKNOWN,)
    return Item(_line(f"{_line(cells['question'])} {_line(cells['context'])}"), answers[0], answers)


def _choice(cells: Mapping[str, Any]) -> Item:
    """The question, the options each after its letter, then the text; the target is a letter."""
    options = _options(cells["options"])
    asked = " ".join(f"{letter}: {text}" for letter, text in options.items())
    letter = _letter(cells["answer"], options)
    source = f"{_line(cells['question'])} {asked} {_line(cells['context'])}"
    return Item(_line(source), letter, (letter, options[letter]))


def _options(value: Any) -> dict[str, str]:
    """Options by letter; data sets have them as a list, or under their letters."""
    if isinstance(value, Mapping):
        return {str(key).strip().upper(): _line(text) for key, text in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {chr(ord("A") + i): _line(text) for i, text in enumerate(value)}
    raise ValueError(f"options are a list or a table, not {str(value)[:40]!r}")


def _letter(answer: Any, options: Mapping[str, str]) -> str:
    """The letter of an answer that is given as letter, as index from 0, or as text."""
    letters = list(options)
    if isinstance(answer, int) and 0 <= answer < len(letters):
        return letters[answer]
    if isinstance(answer, str):
        if answer.strip().upper() in options:
            return answer.strip().upper()
        for letter, text in options.items():
            if text == _line(answer):
                return letter
    raise ValueError(f"the answer {answer!r} is none of the options {', '.join(letters)}")


_MAKE = {"translation": _pair, "summary": _pair, "qa": _question, "choice": _choice}


def _cell(row: Mapping[str, Any], column: str) -> Any:
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            there = ", ".join(map(str, value)) if isinstance(value, Mapping) else "none"
            raise ValueError(f"there is no column {column!r} (there: {there})")
        value = value[part]
    return value


def _line(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {value!r}")
    return " ".join(value.split())
