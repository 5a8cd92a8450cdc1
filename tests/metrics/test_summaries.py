"""ROUGE and accuracy against numbers worked out by hand."""

from dataclasses import replace

import pytest
from tests.metrics.instances import make_log

from proactivellm.metrics.choices import chosen
from proactivellm.metrics.score import score
from proactivellm.metrics.summaries import rouge_l, rouge_n


def test_rouge_of_a_sentence() -> None:
    # Common subsequence "police the gunman" without its order kept: the example of Lin (2004).
    reference = "police killed the gunman"
    assert rouge_l("police kill the gunman", reference) == pytest.approx(100 * 3 / 4)
    assert rouge_l("the gunman kill police", reference) == pytest.approx(100 * 2 / 4)
    assert rouge_n("the gunman kill police", reference, 1) == pytest.approx(100 * 3 / 4)
    assert rouge_n("the gunman kill police", reference, 2) == pytest.approx(100 * 1 / 3)
    # 2 of 3 words predicted, of 5 wanted: P 2/3, R 2/5.
    assert rouge_l("a b x", "a c b d e") == pytest.approx(100 * 2 * (2 / 3) * (2 / 5) / (16 / 15))


def test_what_counts_as_a_word() -> None:
    assert rouge_l("#Person1# isn't late!", "person1 isn t late") == 100
    assert rouge_n("the the the", "the cat", 1) == pytest.approx(100 * 2 / 5)  # counted once
    assert rouge_l("schläft Größe", "SCHLÄFT größe") == 100
    assert rouge_l("我用GPT", "我 用 gpt") == 100
    assert rouge_l("", "a") == rouge_l("", "") == rouge_n("a", "a", 2) == 0


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        *((text, True) for text in ("B", " b ", "(B)", "B.", "B: a turtle", "A turtle.", "turtle")),
        *((text, False) for text in ("A", "", "C: a turtle", "Bob", "a cat", "BC", "a frog")),
    ],
)
def test_which_option_is_named(prediction: str, right: bool) -> None:
    assert chosen(prediction, ["B", "a turtle"]) == 100 * right


def test_an_article_is_no_option() -> None:
    assert chosen("a turtle", ["A", "a frog"]) == 0
    assert chosen("A", ["A", "a frog"]) == chosen("A) a frog", ["A", "a frog"]) == 100


def test_logs_of_both_tasks_are_scored() -> None:
    texts = (("they greet", "They greet."), ("Bob pays", "Bob left."))
    log = [
        replace(
            instance,
            **{"prediction": prediction, "reference": reference, "task": "summary"},
            **{"prediction_length": 2, "delays": [1, 2], "elapsed": [1, 2]},
        )
        for instance, (prediction, reference) in zip(make_log(2), texts, strict=True)
    ]
    scores = score(log, num_bootstrap=0)
    assert (scores["ROUGE-L"], scores["ROUGE-1"], scores["ROUGE-2"]) == (75, 75, 50)
    log = [replace(instance, task="choice", answers=["A", "Bob pays"]) for instance in log]
    scores = score(log, num_bootstrap=0)
    assert scores["accuracy"] == 50 and "BLEU" not in scores
