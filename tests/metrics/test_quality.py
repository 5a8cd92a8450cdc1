"""Quality: sacrebleu's numbers and signatures, from statistics of each instance."""

import math
import random

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from proactivellm.metrics.quality import bleu, chrf, signature

REFERENCES = [
    "the cat sat on the mat .",
    "a dog runs in the green park .",
    "two men are talking .",
    "it is raining again today .",
]
# Words and characters on which tokenising and counting could differ.
AWKWARD = [
    "the",
    "cat,",
    "3.14",
    "1,000.",
    "(x)",
    "&amp;",
    "über",
    "\u3000",
    "猫",
    "😀",
    "U.S.",
    "a-b",
]


def score(metric, predictions: list[str], references: list[str]) -> float:  # type: ignore[no-untyped-def]
    value = metric(predictions, references).corpus()
    assert isinstance(value, float)
    return value


def test_perfect_and_hopeless() -> None:
    assert score(bleu, REFERENCES, REFERENCES) == pytest.approx(100.0)
    assert score(chrf, REFERENCES, REFERENCES) == pytest.approx(100.0)
    assert score(bleu, [""], ["a b c d"]) == 0.0
    assert score(chrf, [""], ["abcd"]) == 0.0


def test_bleu_by_hand() -> None:
    # "a b c d e" against "a b c d f": precisions 4/5, 3/4, 2/3, 1/2, no brevity penalty.
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert score(bleu, ["a b c d e"], ["a b c d f"]) == pytest.approx(expected)
    # "a b c d" against "a b c d f": all precisions 1, brevity penalty exp(1 - 5/4).
    assert score(bleu, ["a b c d"], ["a b c d f"]) == pytest.approx(100 * math.exp(-0.25))


def test_bleu_is_of_the_corpus_and_13a() -> None:
    # Pooled counts, not the mean of sentences: a sentence without any 4-gram has BLEU 0 by itself.
    assert score(bleu, ["a b c d e", "x"], ["a b c d e", "x"]) == pytest.approx(100.0)
    # 13a splits the full stop off the word.
    assert score(bleu, ["a b c d."], ["a b c d ."]) == pytest.approx(100.0)


@pytest.mark.parametrize("seed", range(4))
def test_sacrebleu_gives_the_same(seed: int) -> None:
    """Sentence by sentence, and of corpora from empty predictions to good ones."""
    draw = random.Random(seed)
    references = [" ".join(draw.choices(AWKWARD, k=draw.randint(1, 12))) for _ in range(40)]
    for share in (0.0, 0.3, 0.9):
        predictions = [
            " ".join(
                word if draw.random() < share else draw.choice(AWKWARD) for word in text.split()
            )
            for text in references
        ]
        predictions[0], predictions[1] = "", predictions[1] + "\n"
        for ours, theirs in ((bleu, BLEU()), (chrf, CHRF())):
            expected = theirs.corpus_score(predictions, [references]).score
            assert score(ours, predictions, references) == pytest.approx(expected, abs=1e-9)
            for prediction, reference in zip(predictions, references, strict=True):
                expected = theirs.corpus_score([prediction], [[reference]]).score
                assert score(ours, [prediction], [reference]) == pytest.approx(expected, abs=1e-9)


def test_counting_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [metric(REFERENCES[::-1], REFERENCES).values for metric in (bleu, chrf)]
    monkeypatch.setattr("proactivellm.metrics.ngrams._SYMBOLS_AT_ONCE", 10)
    for metric, values in zip((bleu, chrf), whole, strict=True):
        assert np.array_equal(metric(REFERENCES[::-1], REFERENCES).values, values)


def test_signatures_say_what_was_done() -> None:
    assert signature("BLEU").startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert signature("chrF").startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


@pytest.mark.parametrize("metric", [bleu, chrf])
def test_every_prediction_needs_a_reference(metric) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="4 predictions and 3 references"):
        metric(REFERENCES, REFERENCES[:3])
    with pytest.raises(ValueError, match="0 predictions"):
        metric([], [])
