"""Runs policies over a test set: a log and scores of each, tables and curves. Resumable."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from proactivellm.evaluation.earlier import check_instances, earlier_rows
from proactivellm.evaluation.provenance import Conditions, check_run, noted, run_inputs
from proactivellm.evaluation.results import write_results, write_tables
from proactivellm.files.growing import open_lines
from proactivellm.files.lock import locked
from proactivellm.files.replace import replacing, write_text
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.metrics.bootstrap import NUM_RESAMPLES
from proactivellm.metrics.folders import folder_name
from proactivellm.metrics.measures import check_references
from proactivellm.metrics.score import Scores, score
from proactivellm.output.log import LOG_FILE, TEXT, Instance, recover_log, write_instance
from proactivellm.policy.base import Policy
from proactivellm.policy.calibration import CALIBRATION_FILE, Calibration
from proactivellm.policy.evidence import check_heads_exist
from proactivellm.policy.spec import parse_policy
from proactivellm.report.progress import Progress
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, Replay, StreamsFailed, run_streams

# Gives the log entries of jobs under a policy, in any order; raises StreamsFailed at the end.
Streamer = Callable[[Policy, Sequence[Job], Conditions], Iterator[Instance]]
SIMULEVAL_CONFIG = "source_type: {}\ntarget_type: text\n"  # what `simuleval --score-only` asks


def make_jobs(sources: Sequence[str], targets: Sequence[str] | None) -> list[Job]:
    """Pairs sources with references, line by line.

    Raises a ValueError if there are no sources, or not as many references as sources.
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


def kind_of(jobs: Sequence[Job]) -> str:
    """What the sources are: text, unless there are media among them."""
    return next((job.kind for job in jobs if job.media), TEXT)


def with_replays(jobs: Sequence[Job]) -> list[Job]:
    """The same jobs; their media are taken in once, whatever number of policies.

    The embeddings of the media stay in memory.
    """
    return [replace(j, replay=Replay()) if j.media and not j.replay else j for j in jobs]


def evaluate(
    model: StreamingCausalLM,
    jobs: Sequence[Job],
    policies: Sequence[str] | Mapping[str, Policy],
    out: str | Path,
    *,
    num_lanes: int = 16,
    conditions: Conditions | None = None,
    progress: Progress | None = None,
) -> list[Scores]:
    """Streams every job under every policy, in this process.

    Args:
        num_lanes: streams advanced by one forward.
        model, jobs, policies, out, conditions, progress: see `evaluate_by`; the same of what is
            returned and raised.
    """
    here = partial(stream_jobs, model, num_lanes)
    return evaluate_by(here, model, jobs, policies, out, conditions=conditions, progress=progress)


def evaluate_by(
    streamer: Streamer,
    model: StreamingCausalLM,
    jobs: Sequence[Job],
    policies: Sequence[str] | Mapping[str, Policy],
    out: str | Path,
    *,
    conditions: Conditions | None = None,
    progress: Progress | None = None,
) -> list[Scores]:
    """Streams every job under every policy; what `out` already holds is not run again.

    Args:
        streamer: does the work, with `model` or copies of it.
        model: its folder may hold a calibration table.
        policies: specs, all parsed before anything runs; or policies by what they are called.
        out: folder for logs and results; policies that it has besides stay in its tables.
        conditions: rate, window, counting; the usual rate and no window if left out.
        progress: called after every instance.

    Returns:
        Scores per policy, in order, with intervals; also written to `out` (`write_results`).

    Raises:
        ValueError: a spec or reference is wrong, another process works in `out`, or a log in it is
            of another run; at the end, if sources failed: their policies have no scores.
    """
    check_references(jobs)
    out, conditions = Path(out), conditions or Conditions()
    policies = _parsed(model, policies)
    # A single policy takes each recording in once, and need not keep it in memory.
    jobs = with_replays(jobs) if len(policies) > 1 else jobs
    rows, failed = list[Scores](), list[str]()
    with locked(out):
        inputs = run_inputs(model, conditions, jobs)
        others = earlier_rows(out, [*policies], jobs, inputs, conditions.counting)
        for text, policy in policies.items():
            folder = out / folder_name(text)
            todo, done = _split(folder, jobs, policy.spec, inputs | noted(model, policy, text))
            new = streamer(policy, todo, conditions)
            reasons = _append(folder, done, new, len(jobs), progress and partial(progress, text))
            failed += [f"{text}: {reason}" for reason in reasons]
            if reasons:
                continue
            rows.append({"request": text, **score(done, NUM_RESAMPLES, conditions.counting)})
            write_tables([*others, *rows], out)  # after each: an interruption loses none
        if failed:
            raise ValueError("\n".join(failed))
        write_results([*others, *rows], out, _about(inputs))
    return rows


def _about(inputs: Mapping[str, Any]) -> str:
    """Model and data, for headings."""
    names = [Path(inputs["model"]).name, inputs["data"]]
    return " on ".join(filter(None, names))


def _parsed(
    model: StreamingCausalLM, policies: Sequence[str] | Mapping[str, Policy]
) -> Mapping[str, Policy]:
    if isinstance(policies, Mapping):
        return policies
    calibration = find_calibration(model)
    return {text: parse_policy(text, calibration, whole_source=True) for text in policies}


def stream_jobs(
    model: StreamingCausalLM,
    num_lanes: int,
    policy: Policy,
    jobs: Sequence[Job],
    conditions: Conditions,
) -> Iterator[Instance]:
    """Log entries of the jobs, in order of completion; raises what `run_streams` raises."""
    return run_streams(
        model,
        policy,
        [replace(job, step_s=conditions.step_s) for job in jobs],
        limits=Limits(streams=num_lanes, depth=conditions.depth, sight=conditions.sight),
        rate_wpm=conditions.rate_wpm,
        sampling=Sampling(),
        window=conditions.window,
    )


def find_calibration(model: StreamingCausalLM) -> Calibration | None:
    """The calibration table stored beside a model, if there is one.

    Raises a ValueError if it is malformed, or of a model with other attention heads.
    """
    if model.folder is None or not (model.folder / CALIBRATION_FILE).is_file():
        return None
    table = Calibration.load(model.folder)
    try:
        check_heads_exist(table.heads, *model.num_heads)
    except ValueError as error:
        where = model.folder / CALIBRATION_FILE
        raise ValueError(f"{where} is of another model: {error}") from None
    return table


def _split(
    folder: Path, jobs: Sequence[Job], spec: str, inputs: dict[str, Any]
) -> tuple[list[Job], list[Instance]]:
    """Jobs still to do, and the instances an earlier run left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    done = recover_log(folder / LOG_FILE)
    check_instances(folder, done, jobs, spec)
    check_run(folder, inputs, bool(done))
    write_text(folder / "config.yaml", SIMULEVAL_CONFIG.format(kind_of(jobs)))
    finished = {instance.index for instance in done}
    return [job for job in jobs if job.index not in finished], done


def _append(
    folder: Path,
    done: list[Instance],
    new: Iterator[Instance],
    total: int,
    told: Callable[[int, int], None] | None,
) -> list[str]:
    """Logs new instances as they come; returns the reasons why others could not be streamed."""
    reasons = []
    told = told or (lambda *_: None)
    told(len(done), total)
    with open_lines(folder / LOG_FILE, "a") as log:
        assert log is not None
        try:
            for instance in new:
                write_instance(log, instance)
                done.append(instance)
                told(len(done), total)
        except StreamsFailed as error:
            reasons = str(error).splitlines()
    # Streams end in any order; tools that pair lines expect that of the sources.
    done.sort(key=lambda instance: instance.index)
    with replacing(folder / LOG_FILE) as new_file, new_file.open("w", encoding="utf-8") as log:
        for instance in done:
            write_instance(log, instance)
    return reasons
