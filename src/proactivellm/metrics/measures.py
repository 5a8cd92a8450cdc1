"""What is measured of the instances of one policy: statistics of each, for every metric."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from proactivellm.metrics import latency, quality
from proactivellm.metrics.answers import exact_match, token_f1
from proactivellm.metrics.bootstrap import Statistics, mean, ratio
from proactivellm.metrics.stability import erased_words, normalized_erasure
from proactivellm.metrics.transcripts import error_rates
from proactivellm.output.log import Instance, Task

# The scores of a task, the main one first.
QUALITIES_OF: Mapping[Task, tuple[str, ...]] = {
    "translation": ("BLEU", "chrF"),
    "qa": ("F1", "EM"),
    "asr": ("WER", "CER"),
}
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
        By name: `BLEU`, `chrF` or, of answers, `F1`, `EM` or, of transcripts, those of
        `transcripts.error_rates`, where there are references; the lags and shares of `latency`;
        `NE` and `NE_corpus`; `AL_CA_ms`, `LAAL_CA_ms`, `YAAL_CA_ms`, `first_token_ms`,
        `final_token_ms` (means), `forwards`, `tokens`, `RTF` where the log tells them.

    Raises:
        ValueError: the instances have different tasks or are both of text and of speech, only some
            have a reference, or a reference is empty.
    """
    if len({instance.source_type for instance in instances}) > 1:
        raise ValueError("the instances are of text and of speech: split the log")
    result = measure_quality(instances)
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
    if (factor := measure_real_time(instances)) is not None:
        result["RTF"] = factor
    return result


def measure_quality(instances: Sequence[Instance]) -> dict[str, Statistics]:
    """Statistics of the scores of the task, against the references.

    Args:
        instances: the log of one policy.

    Returns:
        By name, those of `measure`; none if there are no references.

    Raises:
        ValueError: the instances have different tasks, only some have a reference, or a reference
            is empty.
    """
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
    if tasks == ["asr"]:
        return error_rates(predictions, references)
    return {
        "BLEU": quality.bleu(predictions, references),
        "chrF": quality.chrf(predictions, references),
    }


def measure_real_time(instances: Sequence[Instance]) -> Statistics | None:
    """The real-time factor of a corpus: time of computing over duration of the audio.

    Args:
        instances: the log of one policy.

    Returns:
        Columns: both, in ms; None if an instance is of text, or does not tell its time.
    """
    if any(i.compute_ms is None or i.source_type == "text" for i in instances):
        return None
    values = [(i.compute_ms, i.source_length) for i in instances]
    return Statistics(np.array(values, np.float64), ratio)


def common_policy(instances: Sequence[Instance]) -> str:
    """The policy of a log.

    Args:
        instances: all of the log.

    Returns:
        Its canonical spec.

    Raises:
        ValueError: there are no instances, or they are of several policies.
    """
    if not instances:
        raise ValueError("there are no instances to score: the log is empty")
    policies = sorted({instance.policy for instance in instances})
    if len(policies) > 1:
        raise ValueError(
            f"the instances are of several policies ({', '.join(policies)}): keep one log for each"
        )
    return policies[0]


def reference_words(instance: Instance) -> int | None:
    """The length of the reference, which sets the pace of lags.

    Args:
        instance: of a log.

    Returns:
        Words; None if there is no reference.
    """
    return None if instance.reference is None else len(instance.reference.split())


def latency_unit(instances: Sequence[Instance]) -> Literal["ms", "source units"]:
    """What delays are counted in.

    Args:
        instances: the log of one policy.

    Returns:
        The unit.
    """
    return "ms" if instances[0].source_type == "speech" else "source units"


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
