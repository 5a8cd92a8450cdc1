"""Problems that are thought through while they are read: their file, where they come from."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from proactivellm.tasks.data import DataSource, read_items
from proactivellm.tasks.jobs import read_jobs
from proactivellm.tasks.reasoning import puzzles, running
from proactivellm.tasks.reasoning.english import parse, sentence, tell
from proactivellm.tasks.reasoning.gates import Gates, consistency, find_leaks, judge_all
from proactivellm.tasks.reasoning.gsm8k import gsm8k_problem
from proactivellm.tasks.reasoning.logic import parse_all
from proactivellm.tasks.reasoning.problem import (
    Problem,
    read_problems,
    sentences_of,
    write_problems,
)
from proactivellm.tasks.reasoning.rows import Dropped, logic_problem
from proactivellm.tasks.reasoning.theory import VARIABLE, Fact, Rule, Theory
from proactivellm.tasks.reasoning.told import content_words

RECORD = {
    "id": "1",
    "question": "How many eggs does Anna have?",
    "sentences": ["Anna has 2 eggs.", "It rains."],
    "thoughts": ["Anna has 2 eggs.", ""],
    "answer": "2",
}
GSM8K = {
    "question": "Mr. Li has 3 hens. Each hen lays 4 eggs a day. It costs $2 to feed a dog. Half of "
    "the eggs are sold. How many eggs are sold each day?",
    "answer": "He has 3*4 = <<3*4=12>>12 eggs.\nThe sold ones are 12/2 = <<12/2=6>>6.\n#### 6",
}
PRONTOQA = {
    "id": "p",
    "context": "Each yumpus is a dumpus. Max is a yumpus. Dumpuses are not wooden. Impuses are "
    "wooden.",
    "question": "Is the following statement true or false? Max is wooden.",
    "options": ["A) True", "B) False"],
    "answer": "B",
    "explanation": [
        *("Max is a yumpus.", "Each yumpus is a dumpus.", "Max is a dumpus."),
        *("Dumpuses are not wooden.", "Max is not wooden."),
    ],
}
PROOFWRITER = {
    "id": "w",
    "context": "The lion is cold. The lion does not chase the bald eagle. Cold, big things are "
    "red. If someone is cold and they do not chase the bald eagle then they are big. The cow "
    "needs the lion.",
    "question": "Based on the above information, is the following statement true, false, or "
    "unknown? The lion is not red.",
    "options": ["A) True", "B) False", "C) Unknown"],
    "answer": "B",
}


def write_lines(path: Path, *records: Any) -> str:
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return str(path)


def test_a_file_is_what_was_written(tmp_path: Path) -> None:
    problems = running.draw_running(running.LEVELS["easy"], 3, idle=0.5)
    write_problems(tmp_path / "p.jsonl", problems)
    assert read_problems(tmp_path / "p.jsonl") == problems
    item = Problem(**RECORD, integration="So 2.").item()
    assert item.source == "How many eggs does Anna have? Anna has 2 eggs. It rains."
    assert item.target == "Anna has 2 eggs. So 2. The answer is 2." and item.answers == ("2",)


def test_a_recipe_and_an_evaluation_read_the_same_items(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "p.jsonl", RECORD)
    (item,) = read_items(DataSource(reasoning=path))
    (job,) = read_jobs("reasoning", path)
    assert item.target == "Anna has 2 eggs. The answer is 2." and item.place.endswith("problem '1'")
    assert (job.task, job.source, job.answers) == ("reasoning", item.source, ("2",))
    with pytest.raises(ValueError, match="`count` does not belong to `reasoning`"):
        DataSource(reasoning=path, count=3)


def test_a_depth_has_its_stages() -> None:
    problem = Problem(**RECORD, integration="So 2.", reflection="Check: 2.")
    stages = [p.stages for p in map(problem.at_depth, (1, 2, 3))]
    assert stages == [("", ""), ("So 2.", ""), ("So 2.", "Check: 2.")]
    with pytest.raises(ValueError, match="depth 4: give one of 1, 2, 3"):
        problem.at_depth(4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thoughts": ["a"]}, "thoughts has 1 entries for 2 sentences"),
        ({"sentences": []}, "sentences: Tuple should have at least 1"),
        ({"sentences": ["Anna.", 3]}, "sentences.1: Input should be a valid string, not 3"),
        ({"thoughts": ["a\nb", ""]}, "thoughts.0 is not one line"),
        ({"thoughts": ["a<EOT>", ""]}, "thoughts.0 holds <EOT>, which is a mark"),
        ({"answer": ""}, "answer is empty"),
        ({"thought": []}, "unknown key 'thought' in the top level; did you mean 'thoughts'"),
        ({"reflection": "So."}, "reflection comes after integration, which is empty"),
        ({"id": "0"}, "id: '0' is already that of line 1"),
    ],
)
def test_a_bad_line_is_refused_by_its_field(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write_lines(tmp_path / "p.jsonl", {**RECORD, "id": "0"}, {**RECORD, **change})
    with pytest.raises(ValueError) as refused:
        read_problems(path)
    assert str(refused.value).startswith(f"{path}, line 2: {message}"), refused.value
    assert "\n" not in str(refused.value)


def test_sentences_are_cut_after_their_end_and_not_after_a_title() -> None:
    text = 'Mr. A. Li paid $1.50 at 5 p.m. on Monday. He said "Why?" Then 3 dogs came! Really?'
    assert sentences_of(text) == [
        "Mr. A. Li paid $1.50 at 5 p.m. on Monday.",
        'He said "Why?"',
        "Then 3 dogs came!",
        "Really?",
    ]


@pytest.mark.parametrize("level", running.LEVELS)
def test_a_count_runs_through_the_thoughts(level: str) -> None:
    for problem in running.draw_running(running.LEVELS[level], 20, seed=3):
        assert [bool(thought) for thought in problem.thoughts] == list(problem.needed)
        counts: dict[str, int] = {}
        for thought in filter(None, problem.thoughts):
            for step in sentences_of(thought):
                equation, _, state = step.rpartition(", so ")
                who, _, count, _ = state.split()
                if equation:
                    before, sign, number, _, after = equation.split()
                    assert int(before) == counts[who] and after == count
                    assert eval(f"{before} {sign} {number}") == int(count)
                counts[who] = int(count)
        assert problem.answer == str(sum(counts.values()))


def test_problems_are_drawn_as_asked_and_splits_share_none() -> None:
    level = running.LEVELS["medium"]._replace(events=(7, 7), fillers=0.2, people=3)
    for problem in running.draw_running(level, 5):
        assert sum(problem.needed) == 10 and len(problem.sentences) == 12  # 10 / 0.8, rounded
        assert problem.question.count(" and ") == 2
    idle = running.draw_running(running.LEVELS["easy"], 20, idle=1.0)
    assert all(thought for problem in idle for thought in problem.thoughts)
    for draw, levels in (
        (running.draw_running, running.LEVELS),
        (puzzles.draw_logic, puzzles.LEVELS),
    ):
        sets = [draw(levels["easy"], 12, 1, split) for split in ("train", "valid", "test")]
        assert draw(levels["easy"], 12, 1, "valid") == sets[1]
        told = [problem.sentences for problems in sets for problem in problems]
        assert len(set(told)) == 36
        with pytest.raises(ValueError, match="'dev' is no split"):
            draw(levels["easy"], 1, split="dev")


def test_counts_stay_as_small_as_asked() -> None:
    level = running.LEVELS["hard"]._replace(most=8)
    for problem in running.draw_running(level, 30):
        told = " ".join([*problem.thoughts, problem.reflection])  # what two have is a sum
        assert all(int(number) <= 8 for number in re.findall(r"\d+", told)), problem
    with pytest.raises(ValueError, match="most 3: let somebody have 4 or more"):
        running.draw_running(level._replace(most=3), 1)


def test_puzzles_have_all_answers_and_no_word_that_tells_them() -> None:
    problems = puzzles.draw_logic(puzzles.LEVELS["easy"], 90)
    for answer in ("true", "false", "unknown"):
        negated = [" not " in p.question for p in problems if p.answer == answer]
        assert len(negated) == 30 and 0.2 < sum(negated) / 30 < 0.8
    theory = Theory(parse_all(problems[0].sentences))
    assert parse(problems[0].question.rpartition("? ")[2]) in theory.origins  # it is true


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The bald eagle is not kind.", Fact("the bald eagle", "is", "kind", False)),
        ("Anne does not like the cow.", Fact("Anne", "like", "the cow", False)),
        ("The lion chases the cow.", Fact("the lion", "chase", "the cow")),
        ("Max is an impus.", Fact("Max", "is", "an impus")),
    ],
)
def test_a_fact_is_read_and_told(text: str, said: Fact) -> None:
    assert parse(text) == said and sentence(tell(said)) == text


@pytest.mark.parametrize(
    "text",
    [
        "If something is kind and cold then it is red.",
        "If someone is kind and they are cold then they are red.",
        "All kind, cold people are red.",
        "Kind, cold things are red.",
    ],
)
def test_rules_of_any_form_are_the_same(text: str) -> None:
    kind, cold, red = (Fact(VARIABLE, "is", trait) for trait in ("kind", "cold", "red"))
    assert parse(text) == Rule((kind, cold), red)


def test_a_thought_follows_the_sentence_that_makes_it_possible() -> None:
    problem = logic_problem(PRONTOQA)
    assert problem.thoughts == (
        "",
        "Max is a yumpus, so Max is a dumpus.",
        "Max is a dumpus, so Max is not wooden.",
        "",
    )
    assert problem.needed == (True, True, True, False) and problem.answer == "false"
    problem = logic_problem(PROOFWRITER)
    assert problem.question.startswith("Is the following") and problem.thoughts[2] == ""
    assert problem.thoughts[3] == (
        "The lion is cold and the lion does not chase the bald eagle, so the lion is big. "
        "The lion is cold and the lion is big, so the lion is red."
    )
    assert problem.integration == "The lion is red. So the statement is false."


def test_what_a_thought_says_depends_on_what_was_read_alone() -> None:
    statements = parse_all(logic_problem(PROOFWRITER).sentences)
    whole = Theory(statements).derived
    assert [Theory(statements[:n]).derived for n in range(5)] == [whole[:n] for n in range(5)]
    shuffled = logic_problem(PRONTOQA, shuffle=random.Random(2))
    assert shuffled.sentences != logic_problem(PRONTOQA).sentences
    assert shuffled.answer == "false" and not find_leaks(shuffled)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**PRONTOQA, "answer": "A"}, "what follows is not the answer"),
        ({**PRONTOQA, "context": "Max."}, "a sentence is not understood"),
        ({**PRONTOQA, "explanation": ["Max is an impus."]}, "a step of the given proof does not"),
        (
            {**PROOFWRITER, "context": "Max is red. Max is not red."},
            "the theory contradicts itself",
        ),
    ],
)
def test_logic_that_does_not_fit_is_dropped(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Dropped, match=reason):
        logic_problem(row)


def test_equations_become_thoughts_where_their_numbers_are_read() -> None:
    problem = gsm8k_problem(GSM8K, "g")
    assert problem.question == "How many eggs are sold each day?" and problem.answer == "6"
    assert problem.sentences[0] == "Mr. Li has 3 hens."
    # "2" is told of the dog as well: the step waits for the last place that it may come from.
    assert problem.thoughts == ("", "He has 3*4 = 12 eggs.", "", "The sold ones are 12/2 = 6.")
    assert problem.integration == "Together: 3*4 = 12; 12/2 = 6."
    assert problem.reflection == "Check: 12 / 4 = 3; 6 * 2 = 12."
    assert not find_leaks(problem)


def test_a_result_that_is_not_marked_is_known_from_its_step_on() -> None:
    question = "Tom has 9 eggs. He gets 30 more and 10 more. How many has he after he eats 9?"
    solution = "He gets 30+10 = 40 eggs.\nThen he has <<9+40=49>>49.\n<<49-9=40>>40\n#### 40"
    problem = gsm8k_problem({"question": question, "answer": solution}, "g")
    assert problem.thoughts == ("", "He gets 30+10 = 40 eggs. Then he has 49. 40.")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": "Anna has 3 hens."}, "asks nothing"),
        ({"question": "How many?"}, "no sentence beside"),
        ({"answer": "So 6.\n#### 6"}, "no equations"),
        ({"answer": "<<3*4=13>>13\n#### 13"}, "does not hold"),
        ({"answer": "<<3*4=12>>12\n#### 6"}, "not the result"),
        ({"answer": "<<3*x=12>>12\n#### 12"}, "not arithmetic"),
        ({"answer": "<<3*8=24>>24\n#### 24"}, "neither told nor computed"),
    ],
)
def test_arithmetic_that_does_not_fit_is_dropped(change: dict[str, str], reason: str) -> None:
    with pytest.raises(Dropped, match=reason):
        gsm8k_problem({**GSM8K, **change}, "g")


def test_gates_count_characters_where_there_are_no_spaces() -> None:
    chinese = Problem(
        id="c", question="几个?", sentences=("她有五个。",), thoughts=("五个。",), answer="5"
    )
    assert Gates(longest=3).failed(chinese) == []
    assert Gates(longest=2).failed(chinese) == ["granularity"]
    assert Gates(longest_problem=11).failed(chinese) == []
    assert Gates(longest_problem=10).failed(chinese) == ["length"]


def test_content_of_texts_without_spaces_is_pairs_of_characters() -> None:
    two = Problem(
        id="c",
        question="几个?",
        sentences=("她有五个苹果。", "他买了三个梨。"),
        thoughts=("五个苹果。", "三个梨。"),
        answer="5",
    )
    assert consistency(two) > 0.5 and find_leaks(two) == []
    early = two.model_copy(update={"thoughts": ("他买了梨。", "")})
    assert [leak.what for leak in find_leaks(early)] == ["买了", "他买"]
    assert content_words("Ihre Käse, naïve") == {"ihr", "käs", "naïv"}


def test_gates_refuse_what_was_not_read_yet() -> None:
    good = gsm8k_problem(GSM8K, "g")
    rolled = good.model_copy(update={"thoughts": ("The dog eats.", *good.thoughts[1:])})
    assert [leak.what for leak in find_leaks(rolled)] == ["dog"]
    early = good.model_copy(update={"thoughts": ("3 hens lay 4 each.", "", "", "")})
    assert [(leak.sentence, leak.what) for leak in find_leaks(early)] == [(0, "lay"), (0, "4")]
    off = good.model_copy(update={"thoughts": ("Whatever.", "", "", "")})
    assert consistency(off) == 0.0 and consistency(good.model_copy(update={"thoughts": ()})) is None
    unworked = Problem(**{**RECORD, "thoughts": ()})
    kept, report = judge_all([good, early, off, unworked])
    assert kept == [good] and report.passed == 1
    assert report.failed == {"leaks": 1, "consistency": 1, "granularity": 1}
    assert Gates(longest=3).failed(good) == ["granularity"]
    words = len(f"{good.question} {' '.join(good.sentences)} {good.written}".split())
    assert Gates(longest_problem=words).failed(good) == []
    assert Gates(longest_problem=words - 1).failed(good) == ["length"]
    assert report.lines()[0].startswith("1 of 4 pass all gates (failed: 1 granularity, 1 leaks")
