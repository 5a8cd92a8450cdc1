"""Files in SQuAD format: both versions, compressed or not, and one clear line for what is wrong."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from proactivellm.tasks.item import Item
from proactivellm.tasks.squad import read_squad

PASSAGE = "Anna lives in\u00a0Paris.  She has two cats."


def question(text: str, *answers: str, **more: Any) -> dict[str, Any]:
    found = [{"text": answer, "answer_start": 0} for answer in answers]
    return {"id": text[:3], "question": text, "answers": found, **more}


def squad(*questions: dict[str, Any], passage: Any = PASSAGE) -> dict[str, Any]:
    paragraphs = [{"context": passage, "qas": list(questions)}]
    return {"version": "2.0", "data": [{"title": "Anna", "paragraphs": paragraphs}]}


def write(path: Path, content: Any) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.mark.parametrize("name", ["dev.json", "dev.json.gz"])
def test_question_first_and_all_different_answers(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path / name,
        squad(
            question(" Where does she live?", "Paris", "in  Paris", "Paris"),
            question("How many cats?", "two", is_impossible=False),
        ),
    )
    assert read_squad(path) == [
        Item(
            "Where does she live? Anna lives in Paris. She has two cats.",
            "Paris",
            ("Paris", "in Paris"),
            place=f"{path}, question 1",
            delays=(12,),
        ),
        Item(
            "How many cats? Anna lives in Paris. She has two cats.",
            "two",
            ("two",),
            place=f"{path}, question 2",
            delays=(11,),
        ),
    ]


def test_an_answer_waits_for_the_end_of_its_sentence(tmp_path: Path) -> None:
    passage = "Anna lives in  New York, as Tom does. She has two cats, he has none"
    asked = {
        "Where?": ("New York", 15, (9,) * 2),  # a word of the question, 8 of the passage
        "Who else?": ("Tom", 28, (10,)),
        "How many?": ("two", 46, (17,)),  # no mark ends this sentence, but the passage
        "Elsewhere?": ("two", 3, (16,)),  # it does not stand there
        "Nowhere?": ("two", None, (16,)),
    }
    questions = [question(text, answer) for text, (answer, *_) in asked.items()]
    for entry, (_, start, _) in zip(questions, asked.values(), strict=True):
        entry["answers"][0]["answer_start"] = start
    questions.append(question("Why is it so?", "two", is_impossible=True))
    items = read_squad(write(tmp_path / "f.json", squad(*questions, passage=passage)))
    assert [item.delays for item in items] == [*(due for *_, due in asked.values()), (19,)]


def test_questions_without_an_answer_are_unknown_or_left_out(tmp_path: Path) -> None:
    impossible = question("Why?", "a plausible one", is_impossible=True)
    path = write(tmp_path / "f.json", squad(impossible, question("Who?", "Anna")))
    assert [item.answers for item in read_squad(path)] == [("unknown",), ("Anna",)]
    assert [item.target for item in read_squad(path, unanswerable=False)] == ["Anna"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "f.json: not valid JSON: "),
        (b'"\xff"', "f.json: not valid JSON: "),
        ([], "f.json: not in SQuAD format: the top level is not as it should be"),
        ({"version": "1.1"}, "f.json: not in SQuAD format: the top level has no key 'data'"),
        ({"data": [{"title": "T"}]}, "the top level has no key 'paragraphs'"),
        ({"data": []}, "f.json: holds no question"),
        (squad(question("Why?", is_impossible=False)), "question 'Why': it has no answers and is"),
        (squad(question("Who?", "Anna") | {"question": " "}), "question 'Who': expected a text, g"),
        (squad({"id": "x", "answers": []}), "question 'x' has no key 'question'"),
        (squad(question("Who?") | {"answers": [{}]}), "question 'Who' has no key 'text'"),
        (squad(question("Who?") | {"answers": 5}), "question 'Who' is not as it should be"),
        (squad(passage=7), "a paragraph of 'Anna': expected a text, got 7"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path / "f.json", content)
    with pytest.raises(ValueError) as caught:
        read_squad(path)
    assert message in str(caught.value) and str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.json: no such file"):
        read_squad(tmp_path / "nowhere.json")
    path = Path(write(tmp_path / "f.json.gz", squad(question("Who?", "Anna"))))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"f\.json\.gz: cannot be read: "):
        read_squad(path)
