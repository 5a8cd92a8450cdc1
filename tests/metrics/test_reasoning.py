"""Answers after thinking: which are right."""

from dataclasses import replace

import pytest
from tests.metrics.instances import make_log

from proactivellm.metrics.reasoning import answer_in, is_right
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


def test_a_log_of_reasoning_is_scored_by_its_answers() -> None:
    log = [replace(each, task="reasoning", answers=["7"]) for each in make_log(2)]
    right = replace(log[0], prediction="So 7.", prediction_length=2, delays=[1, 2], elapsed=[1, 2])
    assert score([right, log[1]])["accuracy"] == 50.0
