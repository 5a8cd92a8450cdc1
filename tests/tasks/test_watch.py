"""Generated requests to be told of something: what is due and when, and the score of a watcher."""

import json
import runpy
from pathlib import Path

import pytest

from proactivellm.output.log import Instance
from proactivellm.tasks.data import DataSource, read_items
from proactivellm.tasks.watch import KINDS, LONGEST, draw_watches

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "watch.py"


def test_every_report_of_what_was_asked_is_due_and_nothing_else() -> None:
    for watch in draw_watches(300):
        request, *sentences = watch.source.replace(". ", ".\n").split("\n")
        (asked,) = [
            (kind, subject)
            for kind in KINDS
            for subject in kind.subjects
            if request == f"Tell me when {kind.request.format(subject)}."
        ]
        kind, subject = asked
        reports = {kind.report.format(subject, detail=d): d for d in kind.details}
        due = [
            (reports[sentence], sum(len(s.split()) for s in [request, *sentences[: i + 1]]))
            for i, sentence in enumerate(sentences)
            if sentence in reports
        ]
        assert [end for _, end in due] == list(watch.evidence)
        for (detail, _), alert in zip(due, watch.alerts, strict=True):
            assert alert.lower().startswith(detail) and subject in alert
        assert watch.item.target == " ".join(watch.alerts)


def test_until_its_last_word_a_report_could_be_another() -> None:
    """What is said before that is a guess, and no alert that came early."""
    for kind in KINDS:
        report, *others = (
            {text.format(subject, detail=detail) for subject in kind.subjects}
            for detail in kind.details[:1]
            for text in (kind.report, kind.other)
        )
        ends = kind.report.endswith(("{detail}.", "{}."))  # the detail, or of whom it is
        begun = {text.rpartition(" ")[0] for text in report}
        assert ends or begun == {text.rpartition(" ")[0] for text in others[0]}


def test_often_nothing_happens_and_a_detail_is_no_guess() -> None:
    watches = draw_watches(300)
    assert {len(watch.alerts) for watch in watches} == {0, 1, 2}
    assert 0.2 < sum(not watch.alerts for watch in watches) / 300 < 0.5
    assert all(len(set(kind.details)) >= 10 and len(kind.subjects) >= 8 for kind in KINDS)
    assert all(kind.alert.startswith("{detail}") for kind in KINDS)


def test_splits_share_no_stream_and_no_background() -> None:
    other = [f"Number {i} is here." for i in range(200)] + ["word " * (LONGEST + 1)]
    splits = {split: draw_watches(60, 3, split, other) for split in ("train", "valid", "test")}
    sources = [watch.source for watches in splits.values() for watch in watches]
    assert len(set(sources)) == len(sources)
    lines = {
        split: {line for line in other if any(line in watch.source for watch in watches)}
        for split, watches in splits.items()
    }
    assert all(lines.values()) and not any("word word" in source for source in sources)
    assert not lines["train"] & (lines["valid"] | lines["test"]) | lines["valid"] & lines["test"]
    assert draw_watches(60, 3, "valid", other) == splits["valid"]
    with pytest.raises(ValueError, match="'dev' is no split"):
        draw_watches(1, split="dev")


def test_a_recipe_names_them(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("It rains.\n", encoding="utf-8")
    data = DataSource(watch=True, count=20, background=str(tmp_path / "other.txt"))
    items = read_items(data)
    assert len(items) == 20 and any("It rains." in item.source for item in items)
    with pytest.raises(ValueError, match="count: say how many items `watch`"):
        DataSource(watch=True)
    short = DataSource(watch=True, count=20, sentences=(2, 3))
    assert {item.source.count(". ") for item in read_items(short)} == {2, 3}
    with pytest.raises(ValueError, match="sentences: a stream has at least 2"):
        DataSource(watch=True, count=20, sentences=(1, 3))


def test_a_watcher_is_scored(tmp_path: Path) -> None:
    benchmark = runpy.run_path(str(BENCHMARK))

    def instance(index: int, prediction: str, delays: list[float]) -> Instance:
        return Instance(
            index=index,
            source=" ".join("abcdefghij"),
            source_length=10,
            prediction=prediction,
            prediction_length=len(delays),
            delays=delays,
            token_delays=[],
            elapsed=[0.0] * len(delays),
            policy="entropy:0.5",
            forwards=None,
            tokens=None,
        )

    due = [[("12 late: x.", 4), ("13 late: x.", 8)], [("9 down: y.", 6)], [], []]
    instances = [
        instance(0, "12 late: x. 14 late: x.", [5, 5, 5, 9, 9, 9]),  # the second is not true
        instance(1, "9 down: y.", [3, 6, 7]),  # begun before the report
        instance(2, "", []),
        instance(3, "Boo", [10]),
    ]
    row = benchmark["watched"](instances, due)
    assert row["precision"] == 1 / 4 and row["recall"] == 1 / 3
    assert row["lag"] == row["median"] == 1 and row["early"] == 1
    assert row["false"] == 1000 * 3 / 40 and row["silent"] == 0.5
    with pytest.raises(ValueError, match="instance 3 has no line among 3"):
        benchmark["watched"](instances, due[:3])

    benchmark["write_sets"](str(tmp_path), "5", "1")
    written = json.loads((tmp_path / "test.json").read_text(encoding="utf-8"))
    assert (
        len(written) == len((tmp_path / "test.src").read_text(encoding="utf-8").splitlines()) == 5
    )
