"""Rows of data sets become items; data sets of the hub are read from a folder in its format."""

import json
from pathlib import Path
from typing import Any

import pytest

from proactivellm.tasks.data import DataSource, read_items
from proactivellm.tasks.jobs import read_jobs
from proactivellm.tasks.rows import RowTask, check_columns, row_item

DIALOGUE = {"id": "1", "dialogue": "#Person1#: Hi!\n#Person2#: Hello.", "summary": "They greet."}
SQUAD = {
    "question": "Who sings?",
    "context": "Anna sings.\nBen does not.",
    "answers": {"text": ["Anna", "Anna", "Anna S."], "answer_start": [0, 0, 0]},
}
STORY = {
    "question": "What is James?",
    "story": "James was a\nturtle.",
    "answer_options": {"A": "a frog", "B": "a turtle", "C": "a cat", "D": "a dog"},
    "answer": "B",
}
TRANSLATION = {"translation": {"de": "Der Hund schläft.", "en": "The dog sleeps."}}
COLUMNS = {"source": "translation.de", "target": "translation.en"}
CHOICE = "What is James? A: a frog B: a turtle C: a cat D: a dog James was a turtle."


def made(row: dict[str, Any], task: RowTask, columns: dict[str, str] | None = None) -> Any:
    item = row_item(row, task, columns or {}, "row 1")
    assert item is None or item.place == "row 1"
    return item and (item.source, item.target, item.answers)


def test_each_task_makes_a_source_a_target_and_its_answers() -> None:
    greeting = "#Person1#: Hi! #Person2#: Hello."
    assert made(DIALOGUE, "summary") == (greeting, "They greet.", ())
    asked = "Who sings? Anna sings. Ben does not."
    assert made(SQUAD, "qa") == (asked, "Anna", ("Anna", "Anna S."))
    nothing = {"text": [], "answer_start": []}
    assert made({**SQUAD, "answers": nothing}, "qa") == (asked, "unknown", ("unknown",))
    assert made(STORY, "choice") == (CHOICE, "B", ("B", "a turtle"))
    found = made(TRANSLATION, "translation", COLUMNS)
    assert found == ("Der Hund schläft.", "The dog sleeps.", ())
    assert made({**DIALOGUE, "summary": " "}, "summary") is None


@pytest.mark.parametrize("answer", ["b", 1, "a turtle"])
def test_options_and_answers_come_in_several_forms(answer: object) -> None:
    listed = {**STORY, "answer_options": list(STORY["answer_options"].values()), "answer": answer}
    assert made(listed, "choice") == (CHOICE, "B", ("B", "a turtle"))


@pytest.mark.parametrize(
    ("row", "task", "message"),
    [
        ({**STORY, "answer": "E"}, "choice", "row 1: the answer 'E' is none of the options A, B"),
        ({**STORY, "answer": 4}, "choice", "the answer 4 is none"),
        ({**STORY, "answer_options": "A"}, "choice", "options are a list or a table, not 'A'"),
        ({"dialogue": "Hi"}, "summary", r"no column 'summary' \(there: dialogue\)"),
        ({**DIALOGUE, "summary": 3}, "summary", "expected a text, got 3"),
        ({**SQUAD, "answers": {"text": 3}}, "qa", "answers are a text or a list of texts"),
    ],
)
def test_rows_that_do_not_fit(row: dict[str, Any], task: RowTask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        row_item(row, task, {}, "row 1")


def test_columns_are_checked_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="say in which column source and target of a translation"):
        check_columns("translation", {})
    with pytest.raises(ValueError, match="summary reads source, target, not 'context'"):
        check_columns("summary", {"context": "a"})
    with pytest.raises(ValueError, match="`columns` does not belong to `tsv`"):
        DataSource(tsv="a", columns=COLUMNS)


def write_rows(file: Path, *rows: dict[str, Any]) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_folder_in_the_hubs_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "pairs"
    write_rows(folder / "train.jsonl", TRANSLATION, {"translation": {"de": "a", "en": "b"}})
    write_rows(folder / "validation.jsonl", {"translation": {"de": "c", "en": "d"}})
    source = DataSource(hub=str(folder), columns=COLUMNS)
    train, valid = read_items(source), read_items(source, "valid")
    assert [item.target for item in train] == ["The dog sleeps.", "b"]
    assert [(item.source, item.place) for item in valid] == [("c", f"{folder} (validation), row 1")]
    skipped = DataSource(hub=str(folder), columns=COLUMNS, skip=1)
    assert [item.target for item in read_items(skipped)] == ["b"]
    with pytest.raises(ValueError, match=r"cannot load data set .*pairs', split 'test': .*test"):
        read_items(source, "test")


def test_json_lines_are_evaluated_as_choices_and_summaries(tmp_path: Path) -> None:
    (job,) = read_jobs("choice", str(write_rows(tmp_path / "c.jsonl", STORY)))
    assert (job.task, job.source, job.reference) == ("choice", CHOICE, "B")
    assert job.answers == ("B", "a turtle")
    (job,) = read_jobs("summary", str(write_rows(tmp_path / "s.jsonl", DIALOGUE)))
    assert (job.task, job.reference, job.answers) == ("summary", "They greet.", None)
    with pytest.raises(ValueError, match=r"c\.jsonl, line 1: there is no column 'dialogue'"):
        read_jobs("summary", str(tmp_path / "c.jsonl"))
