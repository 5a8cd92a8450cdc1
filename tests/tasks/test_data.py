"""Where instances come from: one description for every task, contradictions refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from proactivellm.tasks.data import DataSource, read_items, texts
from proactivellm.tasks.item import Item
from proactivellm.tasks.lookup import draw

QUESTION = {"id": "1", "question": "Who?", "answers": [{"text": "Anna"}]}
IMPOSSIBLE = {"id": "2", "question": "Why?", "answers": [], "is_impossible": True}


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({}, "give `tsv`, both `source` and `target`, `squad`, `manifest`, `log`, `reasoning`,"),
        (
            {"source": "a"},
            "give `tsv`, both `source` and `target`, `squad`, `manifest`, `log`, `reasoning`,",
        ),
        (
            {"target": "a"},
            "give `tsv`, both `source` and `target`, `squad`, `manifest`, `log`, `reasoning`,",
        ),
        ({"tsv": "a", "source": "b", "target": "c"}, "either `tsv` or `source` and `target`, not"),
        ({"squad": "a", "lookup": "easy", "count": 1}, "either `squad` or `lookup`, not both"),
        ({"tsv": "a", "target": "c"}, "`target` does not belong to `tsv`: leave it out"),
        ({"tsv": "a", "limit": -1}, "limit"),
        ({"tsv": "a", "source_column": -1}, "source_column"),
        ({"tsv": "a", "colum": 1}, "colum"),
        ({"squad": "a", "join": 2}, "`join` does not belong to `squad`: leave it out"),
        ({"squad": "a", "source_column": 1}, "`source_column` does not belong to `squad`"),
        ({"tsv": "a", "unanswerable": False}, "`unanswerable` does not belong to `tsv`"),
        ({"lookup": "easy"}, "count: say how many items"),
        ({"lookup": "easy", "count": 0}, "count: say how many items"),
        ({"lookup": [], "count": 3}, "'' is no level: give easy, medium, hard"),
        (
            {"lookup": ["easy", "heavy"], "count": 3},
            "'heavy' is no level: give easy, medium",
        ),
        ({"lookup": "easy", "count": 3, "limit": 2}, "`limit` does not belong to `lookup`"),
    ],
)
def test_contradictions(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSource(**wish)


def test_every_kind_is_read(tmp_path: Path) -> None:
    tsv, squad = tmp_path / "p.tsv", tmp_path / "s.json"
    tsv.write_text("a\tb\n\tc\nd\te\nf\tg\n")
    paragraphs = [{"context": "Anna sings.", "qas": [IMPOSSIBLE, QUESTION]}]
    squad.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    # pairs with an empty side are left out before the limit
    assert read_items(DataSource(tsv=str(tsv), limit=2)) == [
        Item("a", "b", place=f"{tsv}, line 1"),
        Item("d", "e", place=f"{tsv}, line 3"),
    ]
    (pair,) = read_items(DataSource(source=str(tsv), target=str(tsv), limit=1))
    assert pair == Item("a b", "a b", place=f"{tsv}, line 1")
    assert [i.target for i in read_items(DataSource(squad=str(squad)))] == ["unknown", "Anna"]
    known = read_items(DataSource(squad=str(squad), unanswerable=False))
    assert known == [
        Item("Who? Anna sings.", "Anna", ("Anna",), place=f"{squad}, question 2", delays=(3,))
    ]
    assert list(texts(known)) == ["Who? Anna sings.", "Anna"]


def test_generated_questions_know_their_split() -> None:
    wish = DataSource(lookup=["easy", "medium"], count=6, seed=3)
    for split in ("train", "valid"):
        expected = draw(["easy", "medium"], 6, 3, split)
        assert read_items(wish, split) == [question.item for question in expected]
    one = DataSource(lookup="hard", count=2)
    assert [i.source for i in read_items(one)] == [q.source for q in draw(["hard"], 2)]


def test_instances_skipped_and_sources_by_character(tmp_path: Path) -> None:
    tsv = tmp_path / "p.tsv"
    tsv.write_text("我很 好。\tFine.\n你好\tHi\n再见\tBye\n", encoding="utf-8")
    assert [i.target for i in read_items(DataSource(tsv=str(tsv), skip=1))] == ["Hi", "Bye"]
    assert [i.target for i in read_items(DataSource(tsv=str(tsv), skip=1, limit=1))] == ["Hi"]
    (first,) = read_items(DataSource(tsv=str(tsv), source_characters=True, limit=1))
    assert first[:2] == ("我 很 好 。", "Fine.")


def test_joined_pairs_are_written_as_they_would_arrive(tmp_path: Path) -> None:
    tsv = tmp_path / "p.tsv"
    tsv.write_text("我很 好。\t元気です。\n你好\tはい。\n", encoding="utf-8")
    (joined,) = read_items(DataSource(tsv=str(tsv), join=2))
    assert joined[:2] == ("我很 好。你好", "元気です。はい。")
    (spelled,) = read_items(DataSource(tsv=str(tsv), join=2, source_characters=True))
    assert spelled.source == "我 很 好 。 你 好" and spelled.spelled


@pytest.mark.parametrize("kind", ["tsv", "source", "manifest", "reasoning"])
def test_no_more_is_read_than_is_kept(tmp_path: Path, kind: str) -> None:
    """The archive ends in the middle, which is not reached."""
    line = {
        "manifest": '{"source": "%d", "text": "b"}',
        "reasoning": '{"id": "%d", "question": "q?", "sentences": ["s."], "answer": "b"}',
    }.get(kind, "%d\tb")
    text = "".join(line % n + "\n" for n in range(40_000))
    file = tmp_path / "p.gz"
    file.write_bytes(gzip.compress(text.encode(), 1)[:-99])
    wish = {kind: str(file), **({"target": str(file)} if kind == "source" else {})}
    assert len(read_items(DataSource(**wish, skip=1, limit=2))) == 2
    with pytest.raises(ValueError, match="cannot be read after line"):
        read_items(DataSource(**wish))


def test_pairs_are_joined_in_a_fixed_random_order(tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"s{n}\tt{n}\n" for n in range(20)), encoding="utf-8")
    alone = read_items(DataSource(tsv=str(file), shuffle=True))
    assert sorted(item.source for item in alone) == sorted(f"s{n}" for n in range(20))
    assert [item.source for item in alone] != [f"s{n}" for n in range(20)]
    joined = read_items(DataSource(tsv=str(file), shuffle=True, join=3, skip=1, limit=9))
    assert len(joined) == 5  # of six, two pairs are left over
    assert joined[0].source == " ".join(item.source for item in alone[3:6])
    assert joined[0].target == joined[0].source.replace("s", "t")
    assert joined[0].place.count("joined with") == 2
