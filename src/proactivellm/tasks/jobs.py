"""What `evaluate` and `calibrate` stream: the task and its files decide."""

from dataclasses import replace
from typing import get_args

from proactivellm.evaluation.evaluate import make_jobs
from proactivellm.output.log import Task
from proactivellm.pipeline import Job
from proactivellm.tasks.squad import read_squad
from proactivellm.units.text import read_lines

TASKS: tuple[Task, ...] = get_args(Task)
_SQUAD = (".json", ".json.gz")


def read_jobs(task: str, source: str, target: str | None = None) -> list[Job]:
    """The instances of a test set.

    Args:
        task: "translation", or "qa": a question, then what may answer it, in one source.
        source: text file, one source a line; for "qa" also a `.json` or `.json.gz` file in SQuAD
            format, which holds the answers as well.
        target: text file, line i is the reference of source i; None if there is none.

    Returns:
        The jobs, which name their task.

    Raises:
        ValueError: if the task is unknown, or a file does not fit.
    """
    known = check_task(task)
    if source.endswith(_SQUAD):
        if known != "qa":
            raise ValueError(f"{source}: JSON is read as questions: give --task qa, or a text file")
        if target is not None:
            raise ValueError(f"{source} holds the answers as well: leave --target out")
        items = enumerate(read_squad(source))
        return [
            Job(
                index=i, source=item.source, reference=item.target, task=known, answers=item.answers
            )
            for i, item in items
        ]
    sources, targets = list(read_lines(source)), list(read_lines(target)) if target else None
    return [replace(job, task=known) for job in make_jobs(sources, targets)]


def check_task(task: str) -> Task:
    """Refuse unknown tasks.

    Args:
        task: its name.

    Returns:
        The same.

    Raises:
        ValueError: if there is none of that name.
    """
    for known in TASKS:
        if task == known:
            return known
    raise ValueError(f"unknown task {task!r}: give one of {', '.join(TASKS)}")
