"""Answers after thinking: which are right, and what the thinking cost."""

from dataclasses import replace

import pytest
from tests.metrics.instances import make_log

from proactivellm.metrics.reasoning import Thinking, answer_in, is_right, measure_thinking
from proactivellm.metrics.score import score


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("3 + 4 = 7, so Anna has 7 eggs. The answer is 7.", "7", True),
        ("The answer is $1,250.00.", "1250", True),
        ("The answer is 3 + 4 = 7.", "7", True),
        ("The answer is 7.5. Anna has 7.", "7.5", True),
        ("\\boxed{285}", "285", True),
        ("#### 72", "72", True),
        ("72", "72", True),
        ("The answer is 17.", "7", False),
        ("", "7", False),
        ("Max is red. The answer is true.", "yes", True),
        ("The answer is No.", "false", True),
        ("maybe", "unknown", True),
        ("The answer is unknown.", "false", False),
        ("The answer is the red hat.", "Red hat", True),
        ("A red hat. The answer is a dog.", "red hat", False),
    ],
)
def test_the_answer_of_a_text_is_compared(prediction: str, answer: str, right: bool) -> None:
    assert is_right(prediction, [answer]) == 100.0 * right


def test_the_last_answer_counts_and_any_of_several_is_right() -> None:
    assert answer_in("The answer is 3. Check: 4. The answer is 4.") == "4"
    assert is_right("So 4.", ["3", "4"]) == 100.0
    with pytest.raises(ValueError, match="at least one accepted answer"):
        is_right("4", [])


def test_costs_are_of_stages_and_of_sentences() -> None:
    problems = [
        Thinking("7", ["7"], [4, 0, 6], 2, 3, 1, [True, False, True], 5.0, 0.5),
        Thinking("8", ["7"], [0, 8], 0, 0, 1, [True, False], None, 1.5),
    ]
    found = {name: value.corpus() for name, value in measure_thinking(problems).items()}
    assert found == {
        **{"accuracy": 50.0, "thought_tokens": 9.0, "integration_tokens": 1.0},
        **{"reflection_tokens": 1.5, "answer_tokens": 1.0, "tokens": 12.5, "late_tokens": 10.5},
        **{"think_rate": 3 / 5, "think_rate_needed": 2 / 3, "think_rate_filler": 1 / 2},
        **{"tokens_waited": 5.0, "answer_delay_s": 1.0},
    }
    unlabelled = measure_thinking([problems[0]._replace(needed=())])
    assert unlabelled["think_rate_needed"].corpus() is None
    with pytest.raises(ValueError, match="problem 0: 1 labels for 3 sentences"):
        measure_thinking([problems[0]._replace(needed=[True])])


def test_a_log_of_reasoning_is_scored_by_its_answers() -> None:
    log = [replace(each, task="reasoning", answers=["7"]) for each in make_log(2)]
    right = replace(log[0], prediction="So 7.", prediction_length=2, delays=[1, 2], elapsed=[1, 2])
    assert score([right, log[1]])["accuracy"] == 50.0
