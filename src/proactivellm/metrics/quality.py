"""Quality of a corpus: BLEU and chrF by sacrebleu, with its signature and its bootstrap."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A corpus score.

    Attributes:
        score: 0..100.
        signature: what sacrebleu did, to be quoted with the score.
        interval: half the width of the 95% bootstrap interval; None if it was not asked for.
    """

    score: float
    signature: str
    interval: float | None = None


def bleu(predictions: Sequence[str], references: Sequence[str], num_bootstrap: int = 0) -> Quality:
    """Corpus BLEU (Papineni et al. 2002) with sacrebleu's defaults: 13a tokens, mixed case.

    Args:
        predictions: detokenised outputs; empty ones count.
        references: one for each prediction.
        num_bootstrap: resamples for the confidence interval (sacrebleu uses 1000); 0 = none.

    Returns:
        The score, its signature and, if asked for, its interval.

    Raises:
        ValueError: there are no predictions, or not as many references.
    """
    return _corpus_score(BLEU(), predictions, references, num_bootstrap)


def chrf(predictions: Sequence[str], references: Sequence[str], num_bootstrap: int = 0) -> Quality:
    """Corpus chrF2 (Popovic 2015) with sacrebleu's defaults: character 6-grams, no words.

    Args:
        predictions: detokenised outputs; empty ones count.
        references: one for each prediction.
        num_bootstrap: resamples for the confidence interval (sacrebleu uses 1000); 0 = none.

    Returns:
        The score, its signature and, if asked for, its interval.

    Raises:
        ValueError: there are no predictions, or not as many references.
    """
    return _corpus_score(_Chrf(), predictions, references, num_bootstrap)


class _Chrf(CHRF):
    """CHRF whose scores are floats: its bootstrap fails when it averages np.float32 with 0.0."""

    def _compute_f_score(self, statistics: list[int]) -> float:
        return float(super()._compute_f_score(statistics))


def _corpus_score(
    metric: BLEU | CHRF,
    predictions: Sequence[str],
    references: Sequence[str],
    num_bootstrap: int,
) -> Quality:
    if not predictions or len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions and {len(references)} references: "
            "give one reference for each prediction, and at least one of each"
        )
    result = metric.corpus_score(predictions, [references], n_bootstrap=num_bootstrap)
    signature = str(metric.get_signature())
    interval = None
    if num_bootstrap > 1:
        printed = json.loads(result.format(width=6, signature=signature, is_json=True))
        interval = float(printed.get("confidence_var", 0.0))  # absent where all resamples score 0
    return Quality(score=float(result.score), signature=signature, interval=interval)
