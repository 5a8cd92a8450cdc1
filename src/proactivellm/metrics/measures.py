"""The metrics of one policy's instances, each as statistics of every instance."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from proactivellm.metrics import latency, quality
from proactivellm.metrics.answers import exact_match, token_f1
from proactivellm.metrics.bootstrap import Statistics, mean, ratio
from proactivellm.metrics.choices import chosen
from proactivellm.metrics.counting import Counted
from proactivellm.metrics.evidence import measure_evidence
from proactivellm.metrics.reasoning import is_right
from proactivellm.metrics.stability import erased_words, normalized_erasure
from proactivellm.metrics.summaries import rouge_l, rouge_n
from proactivellm.metrics.thinking import measure_thinking
from proactivellm.metrics.transcripts import error_rates, normalise
from proactivellm.metrics.units import TargetUnit
from proactivellm.output.log import Instance, Task

# The scores of a task, the main one first.
QUALITIES_OF: Mapping[Task, tuple[str, ...]] = {
    "translation": ("BLEU", "chrF"),
    "qa": ("F1", "EM"),
    "choice": ("accuracy",),
    "reasoning": ("accuracy",),
    "summary": ("ROUGE-L", "ROUGE-1", "ROUGE-2"),
    "asr": ("WER", "CER"),
}
# Of tasks with an answer that is right or wrong: 100 or 0.
_RIGHT: Mapping[Task, Callable[[str, Sequence[str]], float]] = {
    "qa": exact_match,
    "choice": chosen,
    "reasoning": is_right,
}
_Length = int | None  # of the reference, which sets the pace of lags

# Macro-averages over instances: name -> value of one instance, None where it is undefined.
_LATENCY: Mapping[str, Callable[[Instance, _Length], float | None]] = {
    "AL": lambda i, n: latency.average_lagging(i.delays, i.source_length, n),
    "LAAL": lambda i, n: latency.length_adaptive_average_lagging(i.delays, i.source_length, n),
    "AP": lambda i, n: latency.average_proportion(i.delays, i.source_length, n),
    "DAL": lambda i, n: latency.differentiable_average_lagging(i.delays, i.source_length),
    "YAAL": lambda i, n: latency.yaal(i.delays, i.source_length, n),
    "RCO": lambda i, n: latency.read_coverage(i.token_delays, i.source_length),
    "AIL": lambda i, n: latency.average_information_lag(i.token_delays, i.source_length),
    "first_token_delay": lambda i, n: float(i.delays[0]) if i.delays else None,
}
# Of `elapsed` instead, in ms, on a clock where listening and computing overlap.
_COMPUTATION_AWARE: Mapping[str, Callable[[Sequence[float], float, _Length], float | None]] = {
    "AL_CA_ms": latency.average_lagging,
    "LAAL_CA_ms": latency.length_adaptive_average_lagging,
    "YAAL_CA_ms": latency.yaal,
}


def measure(instances: Sequence[Instance], counted: Counted) -> dict[str, Statistics]:
    """Statistics of every metric that a log gives.

    Returns:
        By name: those of `QUALITIES_OF` the task and, of transcripts, the others of
        `transcripts.error_rates`, where there are references; `insertions_per_min`: words written
        per minute of the recordings in which nothing is said; the lags and shares of `latency`;
        `NE` and `NE_corpus`; `AL_CA_ms`, `LAAL_CA_ms`, `YAAL_CA_ms`, `first_token_ms`,
        `final_token_ms` (means), `forwards`, `tokens`, `RTF` where the log tells them; those of
        `measure_thinking` where it tells of thoughts, and those of `measure_evidence` where it
        tells what was answered when.

    Raises:
        ValueError: as `check_references`, or the instances are both of text and of speech.
    """
    if len({instance.source_type for instance in instances}) > 1:
        raise ValueError("the instances are of text and of speech: split the log")
    answered = measure_evidence(instances, are_right(instances))  # by words, as they are logged
    instances, unit = [counted.unit.convert(i) for i in instances], counted.unit
    result = measure_quality(instances, counted)
    lengths = [unit.length(instance.reference) for instance in instances]
    for name, metric in _LATENCY.items():
        result[name] = mean(list(map(metric, instances, lengths)))
    result["NE"] = mean([normalized_erasure(i.revisions or [], unit.split) for i in instances])
    result["NE_corpus"] = _measure_erasure(instances, unit)
    if all(instance.source_ms is not None for instance in instances):
        for name, aware in _COMPUTATION_AWARE.items():
            pairs = zip(instances, lengths, strict=True)
            result[name] = mean([aware(i.elapsed, i.source_ms or 0.0, n) for i, n in pairs])
        result["final_token_ms"] = mean([final_token_ms(instance) for instance in instances])
    first_ms = [instance.first_token_ms for instance in instances]
    if any(value is not None for value in first_ms):
        result["first_token_ms"] = mean(first_ms)
    for name in ("forwards", "tokens"):
        counts = [getattr(instance, name) for instance in instances]
        if None not in counts:  # else it would be the mean of another set of sources
            result[name] = mean(counts)
    if (factor := measure_real_time(instances)) is not None:
        result["RTF"] = factor
    return result | measure_thinking(instances) | answered


def are_right(instances: Sequence[Instance]) -> list[bool]:
    """Whether each has the right answer; of a task without one, or without reference: none has."""
    right = _RIGHT.get(instances[0].task)
    return [
        right is not None and i.reference is not None and right(i.prediction, _answers(i)) > 0
        for i in instances
    ]


def measure_quality(instances: Sequence[Instance], counted: Counted) -> dict[str, Statistics]:
    """Statistics of the scores of the task, by name; none if there are no references.

    Raises a ValueError as `check_references`.
    """
    check_references(instances)
    if not instances or instances[0].reference is None:
        return {}
    task = instances[0].task
    if task == "qa":
        return {
            "F1": mean([token_f1(i.prediction, _answers(i)) for i in instances]),
            "EM": mean([exact_match(i.prediction, _answers(i)) for i in instances]),
        }
    if task == "choice":
        return {"accuracy": mean([chosen(i.prediction, _answers(i)) for i in instances])}
    if task == "reasoning":
        return {"accuracy": mean([is_right(i.prediction, _answers(i)) for i in instances])}
    predictions = [instance.prediction for instance in instances]
    references = [instance.reference or "" for instance in instances]
    if task == "summary":
        pairs = list(zip(predictions, references, strict=True))
        rouge = {"ROUGE-L": mean([rouge_l(*pair) for pair in pairs])}
        return rouge | {f"ROUGE-{n}": mean([rouge_n(*pair, n) for pair in pairs]) for n in (1, 2)}
    if task == "asr":
        rates = error_rates(predictions, references)
        return rates | _measure_silence(instances, rates["insertions"])
    return {
        "BLEU": quality.bleu(predictions, references, counted.tokenizer.name),
        "chrF": quality.chrf(predictions, references),
    }


class _Asked(Protocol):
    """What is scored: an instance, or a job that will become one."""

    @property
    def index(self) -> int: ...

    @property
    def reference(self) -> str | None: ...

    @property
    def task(self) -> Task: ...


def check_references(asked: Sequence[_Asked]) -> None:
    """Refuses references that could not be scored: of instances, or of jobs before they run.

    Raises:
        ValueError: they have different tasks, only some have a reference, or the reference of a
            translation is empty.
    """
    tasks = sorted({each.task for each in asked})
    if len(tasks) > 1:
        raise ValueError(f"the instances are of several tasks ({', '.join(tasks)}): split the log")
    missing = [each.index for each in asked if each.reference is None]
    if missing and len(missing) < len(asked):
        raise ValueError(
            f"{len(missing)} of {len(asked)} instances have no reference "
            f"(the first is index {missing[0]}): give one to all or to none"
        )
    for each in asked:
        if each.task == "translation" and each.reference is not None and not each.reference.strip():
            raise ValueError(
                f"instance {each.index} has an empty reference: nothing that is written can match "
                "it, and its length sets the pace of AL; give it one, or leave the instance out of "
                "sources and references (of transcripts, an empty reference is silence)"
            )


def measure_real_time(instances: Sequence[Instance]) -> Statistics | None:
    """The real-time factor of a corpus: ms of computing over ms of audio.

    None if an instance is of text, or does not tell its time.
    """
    if any(i.compute_ms is None or i.source_type == "text" for i in instances):
        return None
    values = [(i.compute_ms, i.source_length) for i in instances]
    return Statistics(np.array(values, np.float64), ratio)


def common_policy(instances: Sequence[Instance]) -> str:
    """The policy of a log; a ValueError if it has several, or no instances."""
    if not instances:
        raise ValueError("there are no instances to score: the log is empty")
    policies = sorted({instance.policy for instance in instances})
    if len(policies) > 1:
        raise ValueError(
            f"the instances are of several policies ({', '.join(policies)}): keep one log for each"
        )
    return policies[0]


def latency_unit(instances: Sequence[Instance]) -> Literal["ms", "source units"]:
    """What delays are counted in."""
    return "source units" if instances[0].source_type == "text" else "ms"


def final_token_ms(instance: Instance) -> float | None:
    """How long after the end of the source the target was complete, in ms.

    Negative if the last word came before the end; None if nothing was written, or the log does not
    tell when the source ended.
    """
    if instance.source_ms is None or not instance.elapsed:
        return None
    return instance.elapsed[-1] - instance.source_ms


def degeneracy(instances: Sequence[Instance], unit: TargetUnit) -> dict[str, Any]:
    """`SWF`, `EFSW`, `degenerate` of `latency.degeneracy`; None each if nothing was written."""
    found = latency.degeneracy(
        (instance.delays, instance.source_length, unit.length(instance.reference))
        for instance in map(unit.convert, instances)
    )
    if found is None:
        return {"SWF": None, "EFSW": None, "degenerate": None}
    return {"SWF": found.swf, "EFSW": found.efsw, "degenerate": found.degenerate}


def _answers(instance: Instance) -> list[str]:
    return instance.answers or [instance.reference or ""]


def _measure_silence(
    instances: Sequence[Instance], insertions: Statistics
) -> dict[str, Statistics]:
    """Words written per minute where nothing is said; nothing if there are no such recordings."""
    silent = [not normalise(instance.reference or "") for instance in instances]
    if instances[0].source_type == "text" or not any(silent):
        return {}
    minutes = [instance.source_length / 60_000 for instance in instances]
    values = np.stack([insertions.values[:, 0], np.array(minutes, np.float64)], axis=1)
    # Rows of 0 for the others, which must stay in the resamples that all metrics share.
    return {"insertions_per_min": Statistics(values * np.array(silent)[:, None], ratio)}


def _measure_erasure(instances: Sequence[Instance], unit: TargetUnit) -> Statistics:
    """Words taken back over words that remain, of the corpus."""
    counts = [
        (erased_words(instance.revisions or [], unit.split), instance.prediction_length)
        for instance in instances
    ]
    return Statistics(np.array(counts, np.float64), ratio)
