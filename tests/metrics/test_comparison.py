"""Two logs, or two folders of logs, side by side: pairing, differences, tables, refusals."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.metrics.instances import make_log, write_log

from proactivellm.metrics.comparison import compare_logs
from proactivellm.metrics.folders import find_logs, folder_name, match
from proactivellm.metrics.score import score
from proactivellm.output.log import Instance
from proactivellm.report.comparison_table import comparison_markdown, comparison_tables

WORSE, BETTER = make_log(80, right=0.4, seed=1), make_log(80, "wait-k:3", right=0.8, seed=2)


def test_a_better_and_slower_system() -> None:
    found = compare_logs(WORSE, BETTER)
    first, second = score(WORSE), score(BETTER)
    assert (found["A"], found["B"]) == ("wait-k:2", "wait-k:3")
    assert (found["num_instances"], found["num_bootstrap"]) == (80, 1000)
    for name in ("BLEU", "chrF", "LAAL", "AL", "DAL", "RCO", "AIL", "LAAL_CA_ms"):
        row = found["metrics"][name]
        assert row["first"] == pytest.approx(first[name])
        assert row["second"] == pytest.approx(second[name])
        assert row["difference"] == pytest.approx(second[name] - first[name])
        assert 0 < row["low"] < row["difference"] < row["high"]
        assert row["p"] < 0.01 and row["num_instances"] == 80
    # YAAL needs a word before the end under both policies: more than three words of source.
    longer = sum(instance.source_length > 3 for instance in BETTER)
    assert found["metrics"]["YAAL"]["num_instances"] == longer < 80
    assert "NE" not in found["metrics"]  # neither takes anything back


def test_systems_that_hardly_differ_and_one_that_is_the_same() -> None:
    found = compare_logs(WORSE, make_log(80, right=0.4, seed=3))["metrics"]
    assert found["BLEU"]["low"] < 0 < found["BLEU"]["high"] and found["BLEU"]["p"] > 0.05
    same = compare_logs(WORSE, WORSE[::-1])["metrics"]  # the order of the lines is of no account
    assert {row["p"] for row in same.values()} == {1.0}
    assert {row["difference"] for row in same.values()} == {0.0}


def test_answers_and_logs_without_references() -> None:
    answers = [replace(i, task="qa", answers=[i.reference or ""]) for i in WORSE]
    better = [replace(i, prediction=i.reference or "") for i in answers]
    found = compare_logs(answers, better)["metrics"]
    assert found["EM"]["second"] == 100.0 > found["F1"]["first"] and "BLEU" not in found
    bare = [[replace(i, reference=None) for i in log] for log in (WORSE, BETTER)]
    metrics = compare_logs(*bare)["metrics"]
    assert "BLEU" not in metrics and "LAAL" in metrics


def test_revisions_are_compared() -> None:
    revised = [replace(i, revisions=["x y", i.prediction]) for i in BETTER]
    assert compare_logs(WORSE, revised)["metrics"]["NE"]["difference"] > 0


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (WORSE, [], r"no instances in B"),
        (
            WORSE,
            BETTER[:-2],
            r"2 of the instances are not in B \(the first is index 78\): .*finish",
        ),
        (WORSE[1:], BETTER, r"1 of the instances are not in A \(the first is index 0\)"),
        (WORSE[:1], BETTER[:1], "two instances at least"),
        (
            WORSE,
            [*BETTER[:5], replace(BETTER[5], source="else"), *BETTER[6:]],
            r"instance 5 has another source in A than in B \(.* and 'else'\): .* same sources",
        ),
        (
            WORSE,
            [*BETTER[:-1], replace(BETTER[-1], reference=None)],
            r"instance 79 has another reference in A than in B \(.* and None\)",
        ),
        (WORSE, [*BETTER[:-1], replace(BETTER[-1], policy="offline")], "B holds several policies"),
    ],
)
def test_what_is_no_pair_is_told(
    first: list[Instance], second: list[Instance], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compare_logs(first, second)


def test_tables() -> None:
    found = compare_logs(WORSE, BETTER)
    lines = comparison_markdown([found, found]).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        *("A", "B", "metric", "of A", "of B", "B - A", "95% interval", "p", "instances")
    ]
    assert len(lines) == 2 + 2 * len(found["metrics"]) + 2
    bleu = found["metrics"]["BLEU"]
    row = f"| {bleu['first']:.1f} | {bleu['second']:.1f} | +{bleu['difference']:.1f} | +"
    assert lines[2].startswith("| wait-k:2 | wait-k:3 | BLEU " + row)
    assert lines[-1].startswith("Paired bootstrap, 1000 resamples")
    console = Console(width=200, record=True, file=io.StringIO())
    for table in comparison_tables([found | {"A_request": "wait-k:2"}]):
        console.print(table)
    text = console.export_text()
    assert text.count("wait-k:2") == 1 and f"+{bleu['difference']:.1f}" in text


def test_transcripts_are_compared_in_ms() -> None:
    def as_speech(log: list[Instance]) -> list[Instance]:
        return [
            replace(
                i,
                task="asr",
                source_type="speech",
                source_length=320.5 * i.source_length,
                delays=[320.5 * d for d in i.delays],
                token_delays=[320.5 * d for d in i.token_delays],
            )
            for i in log
        ]

    found = compare_logs(as_speech(WORSE), as_speech(BETTER))
    words, text = found["metrics"], compare_logs(WORSE, BETTER)["metrics"]
    assert found["latency_unit"] == "ms" and "BLEU" not in words
    assert words["WER"]["high"] < 0 and words["WER"]["p"] < 0.05 and words["CER"]["difference"] < 0
    assert words["LAAL"]["difference"] == pytest.approx(320.5 * text["LAAL"]["difference"])
    markdown = comparison_markdown([found])
    assert f"| LAAL | {words['LAAL']['first']:.0f} | " in markdown
    assert f"| WER | {words['WER']['first']:.2f} | " in markdown
    assert "Lags in ms. WER and CER: lower is better." in markdown
    assert "lower is better" not in comparison_markdown([compare_logs(WORSE, BETTER)])
    with pytest.raises(ValueError, match="another source_type in A than in B"):
        compare_logs([replace(i, source_type="speech") for i in WORSE], BETTER)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An evaluation folder with two policies, one of them asked for by a target."""
    write_log(tmp_path / "out" / "wait-k_3" / "instances.log", BETTER)
    write_log(tmp_path / "out" / "entropy_laal=3" / "instances.log", WORSE)
    rows = [{"request": "wait-k:3"}, {"request": "entropy:laal=3"}, {"request": "gone"}]
    (tmp_path / "out" / "scores.json").write_text(json.dumps(rows))
    return tmp_path / "out"


def test_folders_are_matched_by_request(out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"  # without scores.json: by the names of its folders
    write_log(other / "wait-k_3" / "instances.log", BETTER)
    write_log(other / "offline" / "instances.log", WORSE)
    folders = find_logs(out), find_logs(other)
    assert list(folders[0].logs) == ["entropy:laal=3", "wait-k:3"]
    assert list(folders[1].logs) == ["offline", "wait-k_3"]
    found = match(*folders)
    assert found.pairs == [("wait-k:3", "wait-k_3")]
    assert (found.only_first, found.only_second) == (["entropy:laal=3"], ["offline"])
    with pytest.raises(ValueError, match="out has entropy:laal=3, .* has b; .*--pair") as caught:
        match(folders[0], find_logs(write_log(tmp_path / "b" / "instances.log", WORSE)))
    assert "no policy is in both" in str(caught.value)


def test_pairs_that_were_named(out: Path) -> None:
    folder = find_logs(out)
    assert match(folder, folder, ["entropy:laal=3=wait-k:3"]).pairs == [
        ("entropy:laal=3", "wait-k:3")
    ]
    assert match(folder, folder, ["wait-k_3=entropy_laal=3"]).pairs == [
        ("wait-k:3", "entropy:laal=3")
    ]
    with pytest.raises(ValueError, match=r"--pair 'wait-k:3=offline': .*; \S+out has entropy"):
        match(folder, folder, ["wait-k:3=offline"])


def test_two_logs_are_a_pair(out: Path) -> None:
    logs = find_logs(out / "wait-k_3" / "instances.log"), find_logs(out / "entropy_laal=3")
    assert match(*logs).pairs == [("wait-k_3", "entropy_laal=3")]


def test_folders_without_logs_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no such file or folder"):
        find_logs(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no logs in it \(\*/instances.log\); give a folder"):
        find_logs(tmp_path)
    write_log(tmp_path / "a" / "instances.log", WORSE)
    (tmp_path / "scores.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="scores.json: not a list of scores"):
        find_logs(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "/etc", "a/../../b", "a\0b"])
def test_no_policy_names_a_folder_elsewhere(name: str, tmp_path: Path) -> None:
    folder = (tmp_path / folder_name(name)).resolve()
    assert folder.parent == tmp_path.resolve()
