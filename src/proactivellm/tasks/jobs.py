"""What `evaluate` and `calibrate` stream: the task and its files decide."""

from dataclasses import replace
from typing import get_args

from proactivellm.evaluation.evaluate import make_jobs
from proactivellm.files.lines import read_lines
from proactivellm.modality.kinds import kind_of_file
from proactivellm.output.log import Task
from proactivellm.output.source_units import source_units
from proactivellm.stream import Job
from proactivellm.tasks.hub import read_json_lines
from proactivellm.tasks.item import Item
from proactivellm.tasks.reasoning.problem import read_problem_items
from proactivellm.tasks.speech import read_manifest
from proactivellm.tasks.squad import read_squad

_SQUAD = (".json", ".json.gz")
_MANIFEST = (".jsonl", ".jsonl.gz")


def read_jobs(task: str | None, source: str, target: str | None = None) -> list[Job]:
    """The items of a test set as jobs, which name their task.

    Args:
        task: "translation"; "asr", the transcript of recordings; "qa": a question, then what may
            answer it, in one source; "choice": likewise, with options (the target is a letter);
            "reasoning": a question, then sentences to think about; "summary". None: "asr" for
            recordings, else "translation".
        source: text file, one source a line; for "qa" also a `.json` or `.json.gz` file in SQuAD
            format, which holds the answers as well; for "choice" and "summary" also JSON lines
            (`.jsonl`) of rows, see `tasks.rows`, for "reasoning" a file of problems (`.jsonl`), see
            `tasks.reasoning.problem`; for speech a manifest (`.jsonl`, which holds
            the texts, see `tasks.speech`), a text file with the path of a recording on each line,
            or a recording.
        target: text file, line i is the reference of source i; None if there is none.

    Raises:
        ValueError: the task is unknown, or a file does not fit.
    """
    known = None if task is None else _known_task(task)
    if source.endswith(_SQUAD):
        if known != "qa":
            raise ValueError(f"{source}: JSON is read as questions: give --task qa, or a text file")
        return _jobs(read_squad(source), "qa", source, target)
    if source.endswith(_MANIFEST) and known == "reasoning":
        return _jobs([*read_problem_items(source)], known, source, target)
    if source.endswith(_MANIFEST) and known in ("choice", "summary"):
        return _jobs(read_json_lines(source, known), known, source, target)
    if source.endswith(_MANIFEST):
        items = read_manifest(source)
        default: Task = "asr" if any(item.media for item in items) else "translation"
        return _jobs(items, known or default, source, target)
    targets = list(read_lines(target)) if target else None
    sources = [source] if kind_of_file(source) else list(read_lines(source))
    jobs = make_jobs(sources, targets)
    if not all(map(kind_of_file, sources)):
        return [replace(job, task=known or "translation") for job in jobs]
    return [replace(j, source="", media=(j.source,), task=known or "asr") for j in jobs]


def _jobs(items: list[Item], task: Task, source: str, target: str | None) -> list[Job]:
    """Items of a file that holds the answers as well."""
    if target is not None:
        raise ValueError(f"{source} holds the answers as well: leave --target out")
    return [item_job(index, item, task) for index, item in enumerate(items)]


def item_job(index: int, item: Item, task: Task) -> Job:
    """An item of a task as something to stream."""
    problem = item.problem if task == "reasoning" else None
    return Job(
        index=index,
        source=item.source,
        reference=item.target,
        task=task,
        answers=item.answers or None,
        media=item.media,
        num_asked=len(source_units(problem.question)) if problem else 0,
        needed=tuple(problem.needed_units) if problem else (),
        evidence_s=item.evidence_s,
        group=item.group,
    )


def _known_task(task: str) -> Task:
    tasks: tuple[Task, ...] = get_args(Task)
    for known in tasks:
        if task == known:
            return known
    raise ValueError(f"unknown task {task!r}: give one of {', '.join(tasks)}")
