"""What is measured of the instances of one policy: statistics of each, for every metric."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from proactivellm.metrics import latency, quality
from proactivellm.metrics.answers import exact_match, token_f1
from proactivellm.metrics.bootstrap import Statistics, mean, ratio
from proactivellm.metrics.stability import erased_words, normalized_erasure
from proactivellm.output.log import Instance

_PerInstance = Mapping[str, Callable[[Instance], float | None]]

# Macro-averages over instances: name -> value of one instance, None where it is undefined.
_LATENCY: _PerInstance = {
    "AL": lambda i: latency.average_lagging(i.delays, i.source_length, reference_words(i)),
    "LAAL": lambda i: latency.length_adaptive_average_lagging(
        i.delays, i.source_length, reference_words(i)
    ),
    "AP": lambda i: latency.average_proportion(i.delays, i.source_length, reference_words(i)),
    "DAL": lambda i: latency.differentiable_average_lagging(i.delays, i.source_length),
    "YAAL": lambda i: latency.yaal(i.delays, i.source_length, reference_words(i)),
    "RCO": lambda i: latency.read_coverage(i.token_delays, i.source_length),
    "AIL": lambda i: latency.average_information_lag(i.token_delays, i.source_length),
    "first_token_delay": lambda i: latency.first_token_delay(i.delays),
    "NE": lambda i: normalized_erasure(i.revisions or []),
}
# The same on the clock of `elapsed`, where listening and computing overlap; in ms.
_COMPUTATION_AWARE: _PerInstance = {
    "AL_CA_ms": lambda i: latency.average_lagging(
        i.elapsed, i.source_ms or 0.0, reference_words(i)
    ),
    "LAAL_CA_ms": lambda i: latency.length_adaptive_average_lagging(
        i.elapsed, i.source_ms or 0.0, reference_words(i)
    ),
    "YAAL_CA_ms": lambda i: latency.yaal(i.elapsed, i.source_ms or 0.0, reference_words(i)),
}


def measure(instances: Sequence[Instance]) -> dict[str, Statistics]:
    """Statistics of every metric that a log gives.

    Args:
        instances: the log of one policy.

    Returns:
        By name: `BLEU`, `chrF` or, of answers, `F1`, `EM`, where there are references; the lags and
        shares of `latency`; `NE` and `NE_corpus`; `AL_CA_ms`, `LAAL_CA_ms`, `YAAL_CA_ms`,
        `first_token_ms`, `final_token_ms` (means), `forwards`, `tokens` where the log tells them.

    Raises:
        ValueError: the instances have different tasks, only some have a reference, or a reference
            is empty.
    """
    result = _measure_quality(instances)
    for name, metric in _LATENCY.items():
        result[name] = mean([metric(instance) for instance in instances])
    result["NE_corpus"] = _measure_erasure(instances)
    if all(instance.source_ms is not None for instance in instances):
        for name, metric in _COMPUTATION_AWARE.items():
            result[name] = mean([metric(instance) for instance in instances])
        result["final_token_ms"] = mean([final_token_ms(instance) for instance in instances])
    first_ms = [instance.first_token_ms for instance in instances]
    if any(value is not None for value in first_ms):
        result["first_token_ms"] = mean(first_ms)
    for name in ("forwards", "tokens"):
        counts = [getattr(instance, name) for instance in instances]
        if None not in counts:
            result[name] = mean(counts)
    return result


def reference_words(instance: Instance) -> int | None:
    """The length of the reference, which sets the pace of lags.

    Args:
        instance: of a log.

    Returns:
        Words; None if there is no reference.
    """
    return None if instance.reference is None else len(instance.reference.split())


def final_token_ms(instance: Instance) -> float | None:
    """How long after the end of the source the target was complete.

    Args:
        instance: of a log.

    Returns:
        ms, negative if the last word came before the end; None if nothing was written, or the log
        does not tell when the source ended.
    """
    if instance.source_ms is None or not instance.elapsed:
        return None
    return instance.elapsed[-1] - instance.source_ms


def degeneracy(instances: Sequence[Instance]) -> dict[str, Any]:
    """Whether late output hides behind a few early words.

    Args:
        instances: the log of one policy.

    Returns:
        `SWF`, `EFSW`, `degenerate`, see `latency.degeneracy`; None each if nothing was written.
    """
    found = latency.degeneracy(
        (instance.delays, instance.source_length, reference_words(instance))
        for instance in instances
    )
    if found is None:
        return {"SWF": None, "EFSW": None, "degenerate": None}
    return {"SWF": found.swf, "EFSW": found.efsw, "degenerate": found.degenerate}


def _measure_quality(instances: Sequence[Instance]) -> dict[str, Statistics]:
    tasks = sorted({instance.task for instance in instances})
    if len(tasks) > 1:
        raise ValueError(f"the instances are of several tasks ({', '.join(tasks)}): split the log")
    missing = [instance.index for instance in instances if instance.reference is None]
    if len(missing) == len(instances):
        return {}
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(instances)} instances have no reference "
            f"(the first is index {missing[0]}): give one to all or to none"
        )
    if tasks == ["qa"]:
        return {
            "F1": mean([token_f1(i.prediction, _answers(i)) for i in instances]),
            "EM": mean([exact_match(i.prediction, _answers(i)) for i in instances]),
        }
    predictions = [instance.prediction for instance in instances]
    references = [_reference(instance) for instance in instances]
    return {
        "BLEU": quality.bleu(predictions, references),
        "chrF": quality.chrf(predictions, references),
    }


def _answers(instance: Instance) -> list[str]:
    return instance.answers or [instance.reference or ""]


def _reference(instance: Instance) -> str:
    if not (instance.reference or "").strip():
        raise ValueError(
            f"instance {instance.index} has an empty reference: nothing that is written can match "
            "it, and its length sets the pace of AL; give it one, or leave the instance out of "
            "sources and references"
        )
    return instance.reference or ""


def _measure_erasure(instances: Sequence[Instance]) -> Statistics:
    """Words taken back over words that remain, of the corpus."""
    counts = [
        (erased_words(instance.revisions or []), instance.prediction_length)
        for instance in instances
    ]
    return Statistics(np.array(counts, np.float64), ratio)
