"""The command `data`: problems made, converted and judged, and what it refuses."""

import json
from pathlib import Path

import pytest
from tests.cli.commands import Run
from tests.tasks.test_reasoning import GSM8K, PRONTOQA, RECORD, write_lines

from proactivellm.tasks.reasoning.problem import read_problems


def test_problems_are_generated_as_asked(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "made.jsonl"
    flags = ["--count", 4, "--people", 2, "--events", 3, 3, "--fillers", 0.5, "--idle", 1]
    done = run("data", "running", "--out", out, *flags, "--depth", 1)
    assert done.code == 0 and done.out.startswith("4 of 4 pass all gates"), done
    problems = read_problems(out)
    assert [sum(problem.needed) for problem in problems] == [5] * 4
    assert all(problem.thoughts and not problem.integration for problem in problems)
    assert run("data", "logic", "--count", 3, "--out", out, "--people", 3).code == 0
    assert [problem.answer for problem in read_problems(out)] == ["true", "false", "unknown"]


def test_files_are_converted_and_what_is_dropped_is_told(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    source = write_lines(tmp_path / "g.jsonl", GSM8K, {**GSM8K, "question": "How many?"})
    done = run("data", "gsm8k", "--source", source, "--out", out)
    assert done.out.splitlines()[:2] == [
        "1 of 2 converted",
        "dropped 1: there is no sentence beside the question",
    ]
    (problem,) = read_problems(out)
    short = tmp_path / "short.jsonl"
    done = run("data", "problems", "--source", out, "--out", short, "--longest", 3)
    assert done.out.startswith("0 of 1 pass all gates (failed: 1 granularity"), done
    done = run("data", "problems", "--source", out, "--out", short, "--longest-problem", 9)
    assert done.out.splitlines()[0].endswith(", 1 length)"), done
    source = write_lines(tmp_path / "p.jsonl", PRONTOQA)
    done = run("data", "prontoqa", "--source", source, "--out", out, "--thoughts", "proof")
    assert done.code == 0 and read_problems(out)[0].answer == "false"
    done = run("data", "text", "--source", source, "--out", out)
    assert done.out.startswith("1 of 1 converted\n0 of 1 pass"), done


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["logics"],
            "'logics': give one of running, logic, shapes, counting, gsm8k, prontoqa, proofwriter",
        ),
        (["gsm8k"], "gsm8k is read from a file: give --source"),
        (["running", "--source", "x"], "running is generated: leave --source out"),
        (["running", "--level", "huge"], "--level huge: give one of easy, medium, hard"),
        (["running", "--split", "dev"], "running: 'dev' is no split: give one of train, valid"),
        (["running", "--fillers", "0.95"], "running: fillers 0.95: give a share from 0 to 1"),
        (["logic", "--fillers", "0.5"], "--fillers belongs to running: leave it out"),
        (["logic", "--people", "0"], "logic: 0 people with 6 traits"),
    ],
)
def test_mistakes_end_in_one_line(run: Run, tmp_path: Path, words: list[str], error: str) -> None:
    assert run("data", *words, "--out", tmp_path / "out").error.startswith(error)
    assert not (tmp_path / "out").exists()


def test_mistakes_in_files_end_in_one_line(run: Run, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "s.jsonl", RECORD)
    flags = ["--source", source, "--out", tmp_path / "out"]
    error = run("data", "gsm8k", *flags).error
    assert error == (
        f"{source}, line 1: there is no answer in steps that end with '#### n': '2'; is it a file "
        "of gsm8k?"
    )
    error = run("data", "problems", *flags, "--thoughts", "some").error
    assert error == "--thoughts some: give all or proof"
    write_lines(tmp_path / "s.jsonl", {**PRONTOQA, "answer": "A"})
    error = run("data", "prontoqa", *flags).error
    assert error == (
        f"{source}: none of 1 could be converted: what follows is not the answer that is given"
    )
    assert "would overwrite" in run("data", "problems", "--source", source, "--out", source).error
    json.loads(Path(source).read_text())
