"""Questions about passages, from a file in SQuAD format: the question first, then the passage.

Rajpurkar et al. 2016 (v1.1) and 2018 (v2.0, with questions that have no answer).
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proactivellm.output.sentences import ends_sentence
from proactivellm.output.source_units import source_units
from proactivellm.tasks.item import Item
from proactivellm.tasks.lookup import UNKNOWN


def read_squad(path: str | Path, unanswerable: bool = True) -> list[Item]:
    """Reads a file in SQuAD format, one item a question, in file order.

    The source is the question, then the passage, inner white space collapsed; the target is the
    first answer; all different ones are accepted. An answer waits for the end of the sentence that
    it stands in (`Item.delays`), "unknown" for the end of the passage.

    Args:
        path: JSON, maybe `.gz`.
        unanswerable: whether impossible questions (v2.0) are kept, with the answer "unknown".

    Raises:
        ValueError: the file is missing or broken, is not in SQuAD format, or holds no question.
    """
    items = []
    questions = _questions(path, _load(Path(path)))
    for number, (question, passage, answers, end) in enumerate(questions, start=1):
        if answers or unanswerable:
            known = tuple(dict.fromkeys(" ".join(text.split()) for text in answers)) or (UNKNOWN,)
            source = " ".join(f"{question} {passage}".split())
            due = _due(source, f"{question} {passage[:end]}")
            delays = (due,) * len(source_units(known[0]))
            place = f"{path}, question {number}"
            items.append(Item(source, known[0], known, place=place, delays=delays))
    if not items:
        raise ValueError(f"{path}: holds no question")
    return items


def _load(file: Path) -> Any:
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        content = file.read_bytes()
        return json.loads(gzip.decompress(content) if file.suffix == ".gz" else content)
    except (OSError, EOFError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(f"{file}: not valid JSON: {error}") from None


def _due(source: str, needed: str) -> int:
    """Units up to the end of the sentence in which the needed part of a source ends."""
    units = source_units(source)
    due = len(source_units(needed))
    while due < len(units) and not ends_sentence(units[due - 1].text):
        due += 1
    return due


def _questions(path: str | Path, data: Any) -> Iterator[tuple[str, str, list[str], int]]:
    """Yields question, passage, answers (none where there is none), and where the first answer ends
    in the passage; what does not stand where the file says is taken to end with it.
    """
    where = "the top level"  # what is being read when an error comes
    try:
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                where = f"a paragraph of {article.get('title', 'an article')!r}"
                passage = _text(paragraph["context"])
                for entry in paragraph["qas"]:
                    where = f"question {entry.get('id', '')!r}"
                    question, answers = _text(entry["question"]), entry.get("answers") or []
                    impossible = entry.get("is_impossible", False)
                    if not answers and not impossible:
                        raise ValueError("it has no answers and is not marked is_impossible")
                    texts = [] if impossible else [_text(answer["text"]) for answer in answers]
                    end = _end(passage, answers[0]) if texts else len(passage)
                    yield question, passage, texts, end
    except KeyError as error:
        raise ValueError(f"{path}: not in SQuAD format: {where} has no key {error}") from None
    except (TypeError, AttributeError):
        raise ValueError(f"{path}: not in SQuAD format: {where} is not as it should be") from None
    except ValueError as error:
        raise ValueError(f"{path}: {where}: {error}") from None


def _end(passage: str, answer: dict[str, Any]) -> int:
    start, text = answer.get("answer_start"), str(answer["text"])
    if isinstance(start, int) and start >= 0 and passage.startswith(text, start):
        return start + len(text)
    return len(passage)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected a text, got {value!r}")
    return value
