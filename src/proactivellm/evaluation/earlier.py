"""What a folder holds of earlier evaluations: continued, kept in the tables, or refused."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proactivellm.evaluation.provenance import RUN_FILE, compared
from proactivellm.files.note import ANOTHER, differences, read_note
from proactivellm.metrics.bootstrap import NUM_RESAMPLES
from proactivellm.metrics.counting import Counting
from proactivellm.metrics.folders import folder_name, requests_of
from proactivellm.metrics.score import Scores, score
from proactivellm.output.log import LOG_FILE, Instance, read_log
from proactivellm.stream import Job

_ASKED = ("source", "reference", "task", "answers")


def earlier_rows(
    out: Path,
    requests: Sequence[str],
    jobs: Sequence[Job],
    inputs: Mapping[str, Any],
    counting: Counting,
) -> list[Scores]:
    """Scores of the policies that a folder holds already, besides those that are asked for.

    Args:
        jobs: what is streamed now.
        inputs: of this run, see `provenance.run_inputs`.

    Returns:
        Scores of those that are complete, with intervals, in the order they have in scores.json.

    Raises:
        ValueError: they are of another model, other conditions or other sources, so that they do
            not belong into one table.
    """
    asked = {folder_name(request) for request in requests}
    rows = []
    for log in _logs(out):
        if log.parent.name in asked:
            continue
        if not log.with_name(RUN_FILE).exists():
            _leave_out(log.parent, f"without {RUN_FILE} nobody can tell what it was made of")
            continue
        noted = read_note(log.with_name(RUN_FILE))
        request = noted.get("request", log.parent.name)
        wanted = compared(inputs, noted)
        del wanted["schedules"]  # a replay has those of its policy
        if differs := differences(noted, wanted):
            raise ValueError(
                f"{out} holds another run ({request}: {'; '.join(differs)}); {ANOTHER}"
            )
        instances = read_log(log)
        check_instances(log.parent, instances, jobs)
        if len(instances) == len(jobs):
            rows.append({"request": request, **score(instances, NUM_RESAMPLES, counting)})
        else:
            missing = f"it has {len(instances)} of {len(jobs)} instances"
            _leave_out(request, f"{missing}; ask for it as well to complete it")
    return rows


def _leave_out(what: object, why: str) -> None:
    warnings.warn(f"{what} is left out of the tables: {why}", stacklevel=4)


def check_instances(
    folder: Path, instances: Sequence[Instance], jobs: Sequence[Job], spec: str | None = None
) -> None:
    """Refuses a log of other sources than the jobs, or of another policy than `spec` (None = any).

    Raises a ValueError that names what differs.
    """
    by_index = {job.index: job for job in jobs}
    for instance in instances:
        job = by_index.get(instance.index)
        if job is None:
            what = f"it has instance {instance.index}, of {len(jobs)} that there are now"
        elif names := [n for n in _ASKED if _asked(instance)[n] != _asked(job)[n]]:
            what = f"instance {instance.index} has another {' and '.join(names)}"
        elif spec is not None and instance.policy != spec:
            what = f"policy was {instance.policy}, and is {spec} now"
        else:
            continue
        raise ValueError(f"{folder / LOG_FILE} holds another run ({what}); {ANOTHER}")


def _logs(out: Path) -> list[Path]:
    """Logs of a folder: first those of scores.json, in its order."""
    order = {name: place for place, name in enumerate(requests_of(out))}
    files = sorted(out.glob(f"*/{LOG_FILE}"))
    return sorted(files, key=lambda file: order.get(file.parent.name, len(order)))


def _asked(what: Instance | Job) -> dict[str, Any]:
    return {
        "source": what.name if isinstance(what, Job) else what.source,
        "reference": what.reference,
        "task": what.task,
        "answers": None if what.answers is None else list(what.answers),
    }
