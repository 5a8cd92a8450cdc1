"""When lookup questions are answered, against when their evidence was read.

    python benchmarks/answer_times.py EVIDENCE LOG...

EVIDENCE is the side file that `benchmarks/lookup_sets.py` writes beside the sources of the logs. A
row per log: `lag` = units read at the answer's first token minus units up to the evidence (mean and
median over the questions that have an answer in the source), `before` = share of them answered
before the evidence, `at` = share answered within 5 units after it, `EM` = exact match of each kind,
`end` = share of the "unknown" ones answered at the end of the source and not before.
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from proactivellm.metrics.answers import exact_match
from proactivellm.output.log import Instance, read_log

NEAR = 5  # units: the rest of the fact, and one unit more
UNKNOWN = "unknown"


def answer_times(instances: Sequence[Instance], evidence: Sequence[int]) -> dict[str, float]:
    """What a row of the table shows of one log; nan where there is nothing to count.

    Args:
        evidence: for each line of the sources, units up to and including the evidence.

    Raises:
        ValueError: a source has no such line, or an instance has no reference.
    """
    known, unknown = [], []
    for instance in instances:
        if instance.reference is None:
            raise ValueError(f"instance {instance.index} has no reference: evaluate with --target")
        if instance.index >= len(evidence):
            raise ValueError(f"instance {instance.index} has no line among {len(evidence)}")
        (unknown if instance.reference == UNKNOWN else known).append(instance)
    lags = [i.token_delays[0] - evidence[i.index] for i in known if i.token_delays]
    ends = [bool(i.token_delays) and i.token_delays[0] == i.source_length for i in unknown]
    nothing = [float("nan")]
    return {
        "questions": len(known),
        "lag": statistics.mean(lags or nothing),
        "median": statistics.median(lags or nothing),
        "before": statistics.mean([lag < 0 for lag in lags] or nothing),
        "at": statistics.mean([0 <= lag <= NEAR for lag in lags] or nothing),
        "EM": statistics.mean([_match(i) for i in known] or nothing),
        "unknown": len(unknown),
        "EM unknown": statistics.mean([_match(i) for i in unknown] or nothing),
        "end": statistics.mean(ends or nothing),
    }


def _match(instance: Instance) -> float:
    return exact_match(instance.prediction, instance.answers or [str(instance.reference)])


def main(evidence: str, *logs: str) -> None:
    """Prints a Markdown table of instance logs."""
    units = [int(line) for line in Path(evidence).read_text(encoding="utf-8").split()]
    for number, log in enumerate(logs):
        instances = read_log(log)
        row = answer_times(instances, units)
        if not number:
            print("| policy |", " | ".join(row), "|")
            print("|---|" + "---:|" * len(row))
        counts = ("questions", "unknown")
        cells = [str(row[key]) if key in counts else f"{row[key]:.2f}" for key in row]
        print("|", " | ".join([instances[0].policy if instances else log, *cells]), "|")


if __name__ == "__main__":
    main(*sys.argv[1:])
