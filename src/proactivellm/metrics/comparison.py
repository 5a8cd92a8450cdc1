"""Two systems on the same sources: the difference in each metric, its interval, its p-value."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from proactivellm.metrics.bootstrap import NUM_RESAMPLES, differences
from proactivellm.metrics.counting import Counting, resolve
from proactivellm.metrics.measures import latency_unit, measure
from proactivellm.output.log import Instance

Comparison = dict[str, Any]

# What is compared, in this order, with the decimals that make sense.
COMPARED = {
    **{"BLEU": 1, "chrF": 1, "F1": 1, "EM": 1, "accuracy": 1},
    **{"ROUGE-L": 1, "ROUGE-1": 1, "ROUGE-2": 1, "WER": 2, "CER": 2, "insertions_per_min": 1},
    **{"AL": 2, "LAAL": 2, "YAAL": 2, "DAL": 2, "RCO": 3, "AIL": 2, "NE": 2},
    **{"LAAL_CA_ms": 0, "final_token_ms": 0, "RTF": 3},
}


def compare_logs(
    first: Sequence[Instance],
    second: Sequence[Instance],
    num_bootstrap: int = NUM_RESAMPLES,
    counting: Counting | None = None,
) -> Comparison:
    """Compares two systems, A and B, on the same sources by the paired bootstrap.

    Args:
        second: the same indices as `first`, with the same sources and references.
        counting: tokens of BLEU and unit of latency; by the script of the references if left out.

    Returns:
        `A`, `B` (policies), `num_instances`, `num_bootstrap`, `latency_unit`, `target_unit` and
        maybe `counting_note` (see `score.score`), and `metrics`: for each that both have, the
        fields of `bootstrap.Difference`, B minus A (less than 0 is better for `WER` and `CER`). A
        mean is over the instances where both have a value, and may differ from the mean of one
        alone.

    Raises:
        ValueError: the logs are not of the same sources and references, or cannot be scored.
    """
    first, second = _paired(first, second)
    shows_revisions = any(instance.revisions for instance in (*first, *second))
    # Where nothing is ever taken back, NE is 0 on both sides and tells nothing.
    names = [name for name in COMPARED if name != "NE" or shows_revisions]
    # Decided for both together: two units of latency could not be compared.
    counted = resolve([*first, *second], counting)
    measured = [measure(log, counted) for log in (first, second)]
    selected = [{name: one[name] for name in names if name in one} for one in measured]
    found = differences(selected[0], selected[1], num_bootstrap)
    return {
        "A": first[0].policy,
        "B": second[0].policy,
        "num_instances": len(first),
        "num_bootstrap": num_bootstrap,
        "latency_unit": latency_unit(first),
        **counted.facts(first[0].task),
        "metrics": {name: asdict(difference) for name, difference in found.items()},
    }


def _paired(
    first: Sequence[Instance], second: Sequence[Instance]
) -> tuple[list[Instance], list[Instance]]:
    """Both logs in the order of the sources; refuses logs of other sources or several policies."""
    logs = [{instance.index: instance for instance in log} for log in (first, second)]
    for name, log, other in (("A", logs[0], logs[1]), ("B", logs[1], logs[0])):
        if not log:
            raise ValueError(f"there are no instances in {name}: the log is empty")
        if len(policies := sorted({instance.policy for instance in log.values()})) > 1:
            raise ValueError(
                f"{name} holds several policies ({', '.join(policies)}): keep one log for each"
            )
        if missing := sorted(other.keys() - log.keys()):
            raise ValueError(
                f"{len(missing)} of the instances are not in {name} (the first is index "
                f"{missing[0]}): a comparison needs the same sources; finish that run, or leave "
                "these instances out of the other log"
            )
    indices = sorted(logs[0])
    for index in indices:
        _check_same(logs[0][index], logs[1][index])
    return [logs[0][index] for index in indices], [logs[1][index] for index in indices]


def _check_same(first: Instance, second: Instance) -> None:
    for what in ("task", "source_type", "source", "reference", "answers"):
        values = [getattr(first, what), getattr(second, what)]
        if values[0] != values[1]:
            shown = " and ".join(
                repr(value if value is None else str(value)[:40]) for value in values
            )
            raise ValueError(
                f"instance {first.index} has another {what} in A than in B ({shown}): a comparison "
                "needs runs on the same sources and references"
            )
