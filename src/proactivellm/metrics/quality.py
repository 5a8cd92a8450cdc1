"""Quality of a corpus: BLEU and chrF as sacrebleu defines them, from statistics of each instance.

The numbers are sacrebleu's, to the last digit but for rounding. Its own counting, one sentence at a
time, would take minutes for a bootstrap of both metrics; this takes seconds.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from proactivellm.metrics.bootstrap import Floats, Statistics
from proactivellm.metrics.ngrams import Counts, count_ngrams
from proactivellm.metrics.tokenizers import make_tokenizer

_WORD_ORDER, _CHARACTER_ORDER = 4, 6
_BETA2 = 4.0  # chrF2: recall counts beta^2 times


def bleu(
    predictions: Sequence[str], references: Sequence[str], tokenize: str = "13a"
) -> Statistics:
    """Corpus BLEU (Papineni et al. 2002), 0..100, by sacrebleu's defaults: 13a tokens, mixed case.

    Columns: words of the prediction, words of the reference, matches of orders 1 to 4, n-grams of
    the prediction of orders 1 to 4. Predictions are detokenised; empty ones count.

    Raises:
        ValueError: there are no predictions, or not as many references.
    """
    check_numbers(predictions, references)
    words: dict[str, int] = {}
    tokens_of = make_tokenizer(tokenize)

    def encode(texts: Sequence[str]) -> Iterator[Counts]:
        for text in texts:
            # sacrebleu takes the end of a line off before it tokenizes.
            tokens = tokens_of(text.rstrip()).split()
            yield np.array([words.setdefault(token, len(words)) for token in tokens], np.int64)

    counts = count_ngrams(encode(predictions), encode(references), _WORD_ORDER)
    lengths = [counts.predicted[:, :1], counts.wanted[:, :1]]
    values = np.concatenate([*lengths, counts.matched, counts.predicted], axis=1)
    return Statistics(values.astype(np.float64), _bleu_score)


def chrf(predictions: Sequence[str], references: Sequence[str]) -> Statistics:
    """Corpus chrF2 (Popovic 2015), 0..100, with sacrebleu's defaults: character 6-grams, no words.

    Columns: n-grams of the prediction, n-grams of the reference, matches; orders 1 to 6 each.
    Predictions are detokenised; empty ones count.

    Raises:
        ValueError: there are no predictions, or not as many references.
    """
    check_numbers(predictions, references)
    counts = count_ngrams(_characters(predictions), _characters(references), _CHARACTER_ORDER)
    # sacrebleu counts no n-grams of an order that the reference is too short for.
    predicted = np.where(counts.wanted > 0, counts.predicted, 0)
    values = np.concatenate([predicted, counts.wanted, counts.matched], axis=1)
    return Statistics(values.astype(np.float64), _chrf_score)


def signature(metric: Literal["BLEU", "chrF"], tokenize: str = "13a") -> str:
    """What sacrebleu calls this way of scoring, to be quoted with the score."""
    scorer = BLEU(tokenize=tokenize) if metric == "BLEU" else CHRF()
    scorer.corpus_score(["a"], [["a"]])  # it counts the references before it signs
    return str(scorer.get_signature())


def check_numbers(predictions: Sequence[str], references: Sequence[str]) -> None:
    """Raises a ValueError unless there are predictions, and as many references."""
    if not predictions or len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions and {len(references)} references: "
            "give one reference for each prediction, and at least one of each"
        )


def _characters(texts: Sequence[str]) -> Iterator[Counts]:
    for text in texts:
        # A log may hold half of a surrogate pair, which is a character here like any other.
        code = "".join(text.split()).encode("utf-32-le", "surrogatepass")
        yield np.frombuffer(code, np.uint32).astype(np.int64)


def _bleu_score(sums: Floats) -> Floats:
    """BLEU with exponential smoothing (method 3 of Chen and Cherry 2014) of [..., 10]."""
    length, wanted = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2:6], sums[..., 6:10]
    # The n-th order without a match gets half of what the one before it got.
    smoothed = 0.5 ** np.cumsum(matches == 0, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(matches > 0, matches, smoothed) / totals
        brevity = np.where(length < wanted, np.exp(1 - wanted / length), 1.0)
        score = 100 * brevity * np.exp(np.log(precisions).mean(axis=-1))
    # Without a match, or without n-grams of some order, the geometric mean is 0.
    return np.where((matches > 0).any(axis=-1) & (totals > 0).all(axis=-1), score, 0.0)


def _chrf_score(sums: Floats) -> Floats:
    """F2 of the mean precision and the mean recall over the orders that occur, of [..., 18]."""
    predicted, wanted, matched = np.split(sums, 3, axis=-1)
    occurs = (predicted > 0) & (wanted > 0)
    num_orders = np.maximum(occurs.sum(axis=-1), 1)
    precision = (matched / np.where(occurs, predicted, np.inf)).sum(axis=-1) / num_orders
    recall = (matched / np.where(occurs, wanted, np.inf)).sum(axis=-1) / num_orders
    denominator = _BETA2 * precision + recall
    safe = np.where(denominator > 0, denominator, 1.0)
    return 100 * (1 + _BETA2) * precision * recall / safe
