"""Quality: sacrebleu's numbers, signatures and intervals."""

import math

import pytest

from proactivellm.metrics.quality import bleu, chrf

REFERENCES = [
    "the cat sat on the mat .",
    "a dog runs in the green park .",
    "two men are talking .",
    "it is raining again today .",
]
PREDICTIONS = [
    "the cat sat on the mat .",
    "a dog runs in the park .",
    "two men talk .",
    "",
]


def test_perfect_and_hopeless() -> None:
    assert bleu(REFERENCES, REFERENCES).score == pytest.approx(100.0)
    assert chrf(REFERENCES, REFERENCES).score == pytest.approx(100.0)
    assert bleu([""], ["a b c d"]).score == 0.0
    assert chrf([""], ["abcd"]).score == 0.0


def test_bleu_by_hand() -> None:
    # "a b c d e" against "a b c d f": precisions 4/5, 3/4, 2/3, 1/2, no brevity penalty.
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu(["a b c d e"], ["a b c d f"]).score == pytest.approx(expected)
    # "a b c d" against "a b c d f": all precisions 1, brevity penalty exp(1 - 5/4).
    assert bleu(["a b c d"], ["a b c d f"]).score == pytest.approx(100 * math.exp(-0.25))


def test_bleu_is_of_the_corpus_and_13a() -> None:
    # Pooled counts, not the mean of sentences: a sentence without any 4-gram has BLEU 0 by itself.
    pooled = bleu(["a b c d e", "x"], ["a b c d e", "x"]).score
    assert pooled == pytest.approx(100.0)
    # 13a splits the full stop off the word.
    assert bleu(["a b c d."], ["a b c d ."]).score == pytest.approx(100.0)


def test_signatures_say_what_was_done() -> None:
    result = bleu(PREDICTIONS, REFERENCES)
    assert result.signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert chrf(PREDICTIONS, REFERENCES).signature.startswith(
        "nrefs:1|case:mixed|eff:yes|nc:6|nw:0"
    )
    assert result.interval is None


@pytest.mark.parametrize("metric", [bleu, chrf])
def test_the_interval_is_sacrebleus(metric) -> None:  # type: ignore[no-untyped-def]
    plain = metric(PREDICTIONS, REFERENCES)
    resampled = metric(PREDICTIONS, REFERENCES, num_bootstrap=200)
    assert resampled.score == plain.score
    assert 1.0 < resampled.interval < 50.0
    assert "|bs:200|seed:12345|" in resampled.signature
    assert metric(PREDICTIONS, REFERENCES, num_bootstrap=200) == resampled
    # All sentences are equally good: no resample differs.
    assert metric(REFERENCES, REFERENCES, num_bootstrap=50).interval == 0.0
    assert metric([""], ["abcd"], num_bootstrap=50).interval == 0.0


@pytest.mark.parametrize("metric", [bleu, chrf])
def test_every_prediction_needs_a_reference(metric) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="4 predictions and 3 references"):
        metric(PREDICTIONS, REFERENCES[:3])
    with pytest.raises(ValueError, match="0 predictions"):
        metric([], [])
