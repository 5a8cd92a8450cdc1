"""Run policies over a test set: a log per policy, scores, a table's worth of numbers. Resumable."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from proactivellm.metrics.report import Scores, score, write_scores
from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance, recover_log, write_instance
from proactivellm.pipeline import DEFAULT_RATE_WPM, Job, run_streams
from proactivellm.policy.calibration import CALIBRATION_FILE, Calibration
from proactivellm.policy.spec import parse_policy
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling

SCORES_FILE = "scores.json"
LOG_FILE = "instances.log"  # the name SimulEval looks for
SIMULEVAL_CONFIG = "source_type: text\ntarget_type: text\n"  # what `simuleval --score-only` asks
Progress = Callable[[str, int, int], None]  # policy, instances done, instances in all


def make_jobs(sources: Sequence[str], targets: Sequence[str] | None) -> list[Job]:
    """Pair sources with references.

    Args:
        sources: one instance a line.
        targets: line i belongs to source i; None if there are none.

    Returns:
        The jobs.

    Raises:
        ValueError: if there is nothing to do, or the lengths differ.
    """
    if not sources:
        raise ValueError("the source has no lines")
    if targets is not None and len(sources) != len(targets):
        raise ValueError(
            f"the source has {len(sources)} lines but the target has {len(targets)}: line i of "
            "both must belong together"
        )
    return [
        Job(index=i, source=source, reference=targets[i] if targets is not None else None)
        for i, source in enumerate(sources)
    ]


def evaluate(
    model: StreamingCausalLM,
    jobs: Sequence[Job],
    policies: Sequence[str],
    out: str | Path,
    *,
    num_lanes: int = 16,
    rate_wpm: float = DEFAULT_RATE_WPM,
    progress: Progress | None = None,
) -> list[Scores]:
    """Stream every job under every policy; what `out` already holds is not run again.

    Args:
        model: the streaming model; its folder may hold a calibration table.
        jobs: from `make_jobs`.
        policies: specs; all are parsed before anything runs.
        out: folder for the logs (one folder per policy) and `scores.json`.
        num_lanes: streams advanced by one forward.
        rate_wpm: words per minute on the clock of `elapsed`.
        progress: called after every instance.

    Returns:
        Scores per policy, in order; also written to `scores.json`.

    Raises:
        ValueError: if a spec is wrong, or a log in `out` is of other sources.
    """
    out = Path(out)
    calibration = find_calibration(model)
    parsed = [(text, parse_policy(text, calibration)) for text in policies]
    limits = Limits(streams=num_lanes)
    rows = []
    for text, policy in parsed:
        folder = out / re.sub(r"[^A-Za-z0-9.=,-]+", "_", text)
        todo, done = _split(folder, jobs, policy.spec)
        if progress:
            progress(text, len(done), len(jobs))
        stream = run_streams(
            model,
            policy,
            todo,
            limits=limits,
            rate_wpm=rate_wpm,
            sampling=Sampling(),
        )
        with (folder / LOG_FILE).open("a", encoding="utf-8") as log:
            for instance in stream:
                write_instance(log, instance)
                done.append(instance)
                if progress:
                    progress(text, len(done), len(jobs))
        done.sort(key=lambda instance: instance.index)
        _rewrite(folder, done)
        rows.append({"request": text, **score(done)})
        write_scores(out / SCORES_FILE, rows)
    return rows


def find_calibration(model: StreamingCausalLM) -> Calibration | None:
    """The calibration table stored beside a model.

    Args:
        model: loaded from a folder, or not.

    Returns:
        The table, or None.
    """
    if model.folder is None or not (model.folder / CALIBRATION_FILE).is_file():
        return None
    return Calibration.load(model.folder)


def _split(folder: Path, jobs: Sequence[Job], spec: str) -> tuple[list[Job], list[Instance]]:
    """Jobs still to do, and the instances an earlier run left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(SIMULEVAL_CONFIG, encoding="utf-8")
    done = recover_log(folder / LOG_FILE)
    by_index = {job.index: job for job in jobs}
    for instance in done:
        job = by_index.get(instance.index)
        if (
            job is None
            or (instance.source, instance.reference) != (job.source, job.reference)
            or instance.policy != spec
        ):
            raise ValueError(
                f"{folder / LOG_FILE} holds another run (instance {instance.index} differs in "
                "source, reference or policy); choose another --out or delete that folder"
            )
    finished = {instance.index for instance in done}
    return [job for job in jobs if job.index not in finished], done


def _rewrite(folder: Path, instances: Sequence[Instance]) -> None:
    """The log in the order of the sources, as tools that pair lines expect; atomic."""
    new = folder / (LOG_FILE + ".new")
    with new.open("w", encoding="utf-8") as log:
        for instance in instances:
            write_instance(log, instance)
    new.replace(folder / LOG_FILE)
