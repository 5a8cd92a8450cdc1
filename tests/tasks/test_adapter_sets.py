"""The sets that adapters are trained on: what is held back, and what is left of the text."""

import gzip
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from proactivellm.tasks.squad import read_squad

SETS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "adapter_sets.py"))


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("Parliament &apos;s role , he said .", "Parliament's role, he said."),
        ("it doesn ' t go ( yet ) !", "it doesn't go (yet)!"),
        (
            "the &quot; Basel World 2010 &quot; fair , and &quot; so &quot; .",
            'the "Basel World 2010" fair, and "so".',
        ),
        ("50 % of A &amp; B", "50% of A & B"),
    ],
)
def test_marks_of_the_tokenizer_go(tokens: str, text: str) -> None:
    assert SETS["untokenized"](tokens) == text


def test_articles_are_held_back_whole_and_the_evidence_is_the_answer(tmp_path: Path) -> None:
    def article(number: int) -> dict[str, Any]:
        text = f"There is a town. It has {number} houses and a church."
        answer = {"text": f"{number} houses", "answer_start": text.index(f"{number} houses")}
        asked = {"id": str(number), "question": "How many houses?", "answers": [answer]}
        return {"title": str(number), "paragraphs": [{"context": text, "qas": [asked]}]}

    squad = {"version": "1.1", "data": [article(number) for number in range(48)]}
    file = tmp_path / "xquad.json.gz"
    file.write_bytes(gzip.compress(json.dumps(squad).encode()))
    SETS["write_answers"](file, tmp_path)
    sizes = {}
    for split in ("train", "valid", "test"):
        items = read_squad(tmp_path / f"answers.{split}.json")
        sizes[split] = len(items)
        if split != "train":
            told = (tmp_path / f"answers.{split}.evidence").read_text().split()
            for item, units in zip(items, map(int, told), strict=True):
                assert item.source.split()[units - 1] == item.target.split()[0]
    assert sizes == {"train": 40, "valid": 3, "test": 5}


def test_meetings_are_what_a_query_is_about() -> None:
    turns = [{"speaker": f"S{i}", "content": f"I {{disfmarker}} say {i} ."} for i in range(9)]
    spans, answer = [["1", "2"], ["5", "5"]], "They  talk."
    query = {"query": "What do they say?", "answer": answer, "relevant_text_span": spans}
    long = query | {"relevant_text_span": [["0", "8"]] * 20}
    rows = [{"specific_query_list": [query, long], "meeting_transcripts": turns}]
    (pair,) = SETS["meetings"](rows)
    assert pair == (
        "What do they say. S1: I say 1. S2: I say 2. S5: I say 5.",
        "They talk.",
    )


def test_pairs_without_a_side_are_left_out(tmp_path: Path) -> None:
    for language in ("de", "en"):
        lines = [f"{language} {number} ." for number in range(402)]
        if language == "en":
            lines[1] = lines[401] = ""
        text = "".join(f"{line}\n" for line in lines)
        (tmp_path / f"train.{language}.gz").write_bytes(gzip.compress(text.encode()))
    SETS["write_long"](tmp_path, tmp_path)
    for split, count in {"train": 1, "valid": 200, "test": 199}.items():
        german, english = (
            (tmp_path / f"long.{split}.{language}").read_text().splitlines()
            for language in ("de", "en")
        )
        assert len(german) == len(english) == count
        assert [line[3:] for line in german] == [line[3:] for line in english]
