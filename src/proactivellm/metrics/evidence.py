"""When an answer comes, by the time at which its source had told it: logs with `evidence_ms`.

Word k of a prediction has the evidence of word k of the reference, words beyond it that of the
last. A delay is the time of a word on the clock of the source (the end of the last unit that was
read) minus its evidence, so that it has whole units in it: a frame waits for the end of its unit.
"""

from collections.abc import Sequence

from proactivellm.metrics.bootstrap import Statistics, mean
from proactivellm.output.log import Instance

_ROUNDING_MS = 1.0  # by which times of a source may be off


def measure_evidence(instances: Sequence[Instance], right: Sequence[bool]) -> dict[str, Statistics]:
    """Means over instances, where the log tells their evidence; none if it tells of none.

    Args:
        right: whether each instance has the right answer.

    Returns:
        By name: `premature`, the share with a word before its evidence, which is a guess, right or
        not; `evidence_delay_s`, the mean delay of the words of answers that are right and not
        premature; `end_delay_s`, what the same answers would have had at the end of their sources,
        as a model that waits for it; `late_words`, the words that are written once the source has
        ended, which a user has to wait for; `silence`, the share of the time before the first
        evidence in which nothing was written.
    """
    if not any(instance.evidence_ms for instance in instances):
        return {}
    delays = [word_delays_s(instance) for instance in instances]
    early = [None if each is None else is_premature(each) for each in delays]
    return {
        "evidence_delay_s": mean(answer_delays_s(instances, right)),
        "end_delay_s": mean(
            [
                _end_delay_s(instance) if good and each and not soon else None
                for instance, good, each, soon in zip(instances, right, delays, early, strict=True)
            ]
        ),
        "premature": mean([None if soon is None else float(soon) for soon in early]),
        "late_words": mean([_late_words(instance) for instance in instances]),
        "silence": mean([_silence(instance) for instance in instances]),
    }


def answer_delays_s(instances: Sequence[Instance], right: Sequence[bool]) -> list[float | None]:
    """Mean delay of the words of each answer; None unless it is right, and none was premature."""
    delays = [word_delays_s(instance) for instance in instances]
    return [
        sum(each) / len(each) if good and each and not is_premature(each) else None
        for each, good in zip(delays, right, strict=True)
    ]


def word_delays_s(instance: Instance) -> list[float] | None:
    """Of each word, seconds after its evidence, below 0 before it; None if that is not known.

    It is not of characters, where words of the reference have times of their own.
    """
    told = instance.evidence_ms
    if not told or (instance.latency_unit != "word" and len({*told}) > 1):
        return None
    beyond = [told[-1]] * (len(instance.delays) - len(told))
    pairs = zip(instance.delays, [*told, *beyond], strict=False)
    return [(delay - evidence) / 1000 for delay, evidence in pairs]


def is_premature(delays_s: Sequence[float]) -> bool:
    """Whether a word came before its evidence."""
    return any(1000 * delay < -_ROUNDING_MS for delay in delays_s)


def _end_delay_s(instance: Instance) -> float:
    told = instance.evidence_ms or [0.0]
    return (instance.source_length - sum(told) / len(told)) / 1000


def _late_words(instance: Instance) -> float:
    end_ms = instance.source_length - _ROUNDING_MS
    return float(sum(delay >= end_ms for delay in instance.delays))


def _silence(instance: Instance) -> float | None:
    """Of the time before the first evidence; None where there is no such time."""
    if not instance.evidence_ms or not instance.evidence_ms[0]:
        return None
    first = instance.evidence_ms[0]
    return min(instance.delays[0], first) / first if instance.delays else 1.0
