"""Run policies over a test set: a log per policy, scores, a table's worth of numbers. Resumable."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from proactivellm.evaluation.results import write_results, write_tables
from proactivellm.metrics.bootstrap import NUM_RESAMPLES
from proactivellm.metrics.counting import Counting
from proactivellm.metrics.folders import folder_name
from proactivellm.metrics.measures import check_references
from proactivellm.metrics.report import Scores, score
from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.model.loading import bundled_models
from proactivellm.output.log import LOG_FILE, Instance, recover_log, write_instance
from proactivellm.pipeline import DEFAULT_RATE_WPM, Job, Replay, StreamsFailed, run_streams
from proactivellm.policy.attention import check_heads_exist
from proactivellm.policy.base import Policy
from proactivellm.policy.calibration import CALIBRATION_FILE, Calibration
from proactivellm.policy.spec import parse_policy
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window

RUN_FILE = "run.json"  # what the instances of the log beside it have in common
SIMULEVAL_CONFIG = "source_type: {}\ntarget_type: text\n"  # what `simuleval --score-only` asks
Progress = Callable[[str, int, int], None]  # policy, instances done, instances in all


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the instances of a log have in common, besides model and policy.

    Attributes:
        rate_wpm: words per minute on the clock of `elapsed`.
        window: what a stream keeps in view; everything if None.
        counting: tokens of BLEU and unit of latency. A log may be scored in any way, so that it is
            no condition of continuing one.
    """

    rate_wpm: float = DEFAULT_RATE_WPM
    window: Window | None = None
    counting: Counting = Counting()


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


def with_replays(jobs: Sequence[Job]) -> list[Job]:
    """The same jobs; their recordings are heard once, whatever number of policies.

    Args:
        jobs: of text or speech. What a recording becomes stays in memory: its embeddings.

    Returns:
        The jobs.
    """
    return [replace(j, replay=Replay()) if j.audio and not j.replay else j for j in jobs]


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
    """Stream every job under every policy; what `out` already holds is not run again.

    Args:
        model: the streaming model; its folder may hold a calibration table.
        jobs: from `make_jobs`.
        policies: specs, all parsed before anything runs; or policies by what they are called.
        out: folder for the logs (one folder per policy) and the results.
        num_lanes: streams advanced by one forward.
        conditions: rate, window, counting; the usual rate and no window if left out.
        progress: called after every instance.

    Returns:
        Scores per policy, in order, with intervals; also written to `out` (`write_results`).

    Raises:
        ValueError: if a spec is wrong, a reference cannot be scored, or a log in `out` is of
            another run; at the end, if sources could not be streamed: their policies have logs of
            the others, and no scores.
    """
    check_references(jobs)
    out, conditions = Path(out), conditions or Conditions()
    policies = _parsed(model, policies)
    jobs, facts = (with_replays(jobs) if len(policies) > 1 else jobs), _facts(model, conditions)
    rows, failed = list[Scores](), list[str]()
    for text, policy in policies.items():
        folder = out / folder_name(text)
        todo, done = _split(folder, jobs, policy.spec, facts)
        reasons: list[str] = []
        new = _stream(model, policy, todo, num_lanes, conditions)
        for num_done in _append(folder, done, new, reasons):
            if progress:
                progress(text, num_done, len(jobs))
        failed += [f"{text}: {reason}" for reason in reasons]
        if not reasons:
            rows.append({"request": text, **score(done, NUM_RESAMPLES, conditions.counting)})
            write_tables(rows, out)
    if failed:
        raise ValueError("\n".join(failed))
    write_results(rows, out)
    return rows


def _parsed(
    model: StreamingCausalLM, policies: Sequence[str] | Mapping[str, Policy]
) -> Mapping[str, Policy]:
    if isinstance(policies, Mapping):
        return policies
    calibration = find_calibration(model)
    return {text: parse_policy(text, calibration) for text in policies}


def _stream(
    model: StreamingCausalLM,
    policy: Policy,
    jobs: Sequence[Job],
    num_lanes: int,
    conditions: Conditions,
) -> Iterator[Instance]:
    return run_streams(
        model,
        policy,
        jobs,
        limits=Limits(streams=num_lanes),
        rate_wpm=conditions.rate_wpm,
        sampling=Sampling(),
        window=conditions.window,
    )


def find_calibration(model: StreamingCausalLM) -> Calibration | None:
    """The calibration table stored beside a model.

    Args:
        model: loaded from a folder, or not.

    Returns:
        The table, or None.

    Raises:
        ValueError: if it is malformed, or of a model with other attention heads.
    """
    if model.folder is None or not (model.folder / CALIBRATION_FILE).is_file():
        return None
    table = Calibration.load(model.folder)
    where = f"{model.folder / CALIBRATION_FILE} is of another model"
    check_heads_exist(table.heads, *model.num_heads, where)
    return table


def _facts(model: StreamingCausalLM, conditions: Conditions) -> dict[str, Any]:
    """What a run has in common with those that may be continued by it, as JSON holds it."""
    names = {folder: name for name, folder in bundled_models().items()}
    if model.folder is None:
        name = model.model.config.name_or_path
    else:
        name = names.get(model.folder, str(model.folder.resolve()))
    method = getattr(getattr(model.model.config, "quantization_config", None), "quant_method", None)
    return {
        "model": name,
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "quantization": None if method is None else str(getattr(method, "value", method)),
        **{key: value for key, value in asdict(conditions).items() if key != "counting"},
        **({} if model.front_end is None else {"gate": _gate(model)}),
    }


def _gate(model: StreamingCausalLM) -> dict[str, Any] | None:
    gate = model.front_end.gate
    return None if gate is None else gate.model_dump()


def _split(
    folder: Path, jobs: Sequence[Job], spec: str, facts: dict[str, Any]
) -> tuple[list[Job], list[Instance]]:
    """Jobs still to do, and the instances an earlier run left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = "speech" if any(job.audio for job in jobs) else "text"
    (folder / "config.yaml").write_text(SIMULEVAL_CONFIG.format(kind), encoding="utf-8")
    done = recover_log(folder / LOG_FILE)
    by_index = {job.index: job for job in jobs}
    for instance in done:
        job = by_index.get(instance.index)
        if job is None or _as_asked(instance) != _as_asked(job) or instance.policy != spec:
            what = f"instance {instance.index} differs in source, reference, task or policy"
            raise _another_run(folder, what)
    _check_facts(folder, facts, bool(done))
    finished = {instance.index for instance in done}
    return [job for job in jobs if job.index not in finished], done


def _as_asked(what: Instance | Job) -> tuple[Any, ...]:
    return (
        what.name if isinstance(what, Job) else what.source,
        what.reference,
        what.task,
        None if what.answers is None else list(what.answers),
    )


def _check_facts(folder: Path, facts: dict[str, Any], continues: bool) -> None:
    """Notes them, or compares with what an earlier run noted; one without a note had no window."""
    file = folder / RUN_FILE
    before: dict[str, Any] = {"window": None} if continues else {}
    if continues and file.exists():
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise _another_run(folder, f"{RUN_FILE} is broken") from None
    for key, value in facts.items():
        if before.get(key, value) != value:
            raise _another_run(folder, f"{key} was {before[key]}, and is {value} now")
    if before != facts:
        file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _another_run(folder: Path, what: str) -> ValueError:
    remedy = "choose another --out or delete that folder"
    return ValueError(f"{folder / LOG_FILE} holds another run ({what}); {remedy}")


def _append(
    folder: Path, done: list[Instance], new: Iterator[Instance], reasons: list[str]
) -> Iterator[int]:
    """Logs new instances as they come, at the end in the order of the sources.

    Yields how many are done, and leaves the reasons why others could not be streamed.
    """
    yield len(done)
    with (folder / LOG_FILE).open("a", encoding="utf-8") as log:
        try:
            for instance in new:
                write_instance(log, instance)
                done.append(instance)
                yield len(done)
        except StreamsFailed as error:
            reasons += str(error).splitlines()
    done.sort(key=lambda instance: instance.index)
    _rewrite(folder, done)


def _rewrite(folder: Path, instances: Sequence[Instance]) -> None:
    """The log in the order of the sources, as tools that pair lines expect; atomic."""
    new = folder / (LOG_FILE + ".new")
    with new.open("w", encoding="utf-8") as log:
        for instance in instances:
            write_instance(log, instance)
    new.replace(folder / LOG_FILE)
