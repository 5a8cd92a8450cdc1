"""What `show` is asked for: sources under one policy, out of a log or as they are given."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proactivellm.modality.kinds import kind_of_file

if TYPE_CHECKING:
    from proactivellm.output.log import Instance
    from proactivellm.session.window import Window
    from proactivellm.stream import Job


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be run: sources under one policy."""

    jobs: "Sequence[Job]"
    model: str | None  # None = the bundled default
    policy: str | None  # None = that of the model
    request: str | None = None  # the policy as it was asked for
    run: Mapping[str, Any] = field(default_factory=dict)  # facts of the run behind the log
    window: "Window | None" = None  # of that run
    logged: "Sequence[Instance]" = ()  # what should come out
    listens: bool = False  # whether the sources are recordings
    log: Path | None = None  # names the model


def wish_from_text(
    source: str | None,
    source_file: str | None,
    index: Sequence[int] | None,
    model: str | None,
    policy: str | None,
) -> Wish:
    """Sources given as they are: a text, a file of texts, a recording, a manifest of recordings."""
    from proactivellm.files.lines import read_lines
    from proactivellm.policy.spec import PolicySpec
    from proactivellm.stream import Job

    if policy is not None:
        PolicySpec.parse(policy)  # a mistake is told before the model is loaded
    if source_file is not None and (kind_of_file(source_file) or source_file.endswith(".jsonl")):
        from proactivellm.tasks.jobs import read_jobs

        found = read_jobs(None, source_file)
        if kinds := {job.kind for job in found} - {"speech"}:
            raise ValueError(f"{source_file} is {min(kinds)}: give text, recordings, or a manifest")
        heard = [found[i] for i in chosen_of(index, range(len(found)), source_file)]
        return Wish(jobs=heard, model=model, policy=policy, request=policy, listens=True)
    lines = [source] if source is not None else list(read_lines(str(source_file)))
    where = "--source" if source is not None else str(source_file)
    chosen = chosen_of(index, range(len(lines)), where)
    jobs = [Job(index=i, source=str(lines[i])) for i in chosen]
    return Wish(jobs=jobs, model=model, policy=policy, request=policy)


def wish_from_log(
    path: Path, index: Sequence[int] | None, model: str | None, policy: str | None
) -> Wish:
    """Instances of a log, with model, policy and window of its run unless others are given."""
    from proactivellm.evaluation.provenance import RUN_FILE
    from proactivellm.output.log import read_log
    from proactivellm.session.window import Window
    from proactivellm.stream import Job

    log, is_named = _find_log(path, policy)
    run = _read_run(log.with_name(RUN_FILE))
    if model is None and "model" not in run:
        raise ValueError(f"{log} has no {RUN_FILE} beside it that names its model: give --model")
    instances = {instance.index: instance for instance in read_log(log)}
    chosen = [instances[i] for i in chosen_of(index, list(instances), str(log))]
    if chosen[0].source_type == "speech":
        raise ValueError(f"{log} is of recordings: give them with --source-file")
    spec = policy if policy and not is_named else chosen[0].policy
    if spec == "unknown":
        raise ValueError(f"{log} does not name its policy: give --policy")
    same_model = model in (None, run.get("model"))
    return Wish(
        jobs=[Job(index=i.index, source=i.source, reference=i.reference) for i in chosen],
        model=model or run["model"],
        policy=spec,
        request=policy if policy and not is_named else run.get("request"),
        run=run if same_model else {},
        window=Window(**run["window"]) if run.get("window") else None,
        logged=chosen if same_model and spec == chosen[0].policy else (),
        log=log if model is None else None,
    )


def _find_log(path: Path, policy: str | None) -> tuple[Path, bool]:
    """The log meant, and whether --policy was the name of one in a folder of several."""
    from proactivellm.metrics.folders import find_logs, folder_name

    logs = find_logs(path).logs
    if len(logs) == 1:
        return next(iter(logs.values())), False
    named = [log for log in logs.values() if policy and log.parent.name == folder_name(policy)]
    if not named:
        raise ValueError(
            f"{path} holds several policies, name one with --policy: {', '.join(logs)}"
        )
    return named[0], True


def _read_run(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise ValueError(f"{file} is broken: delete it and give --model") from None


def chosen_of(index: Sequence[int] | None, there: Sequence[int], where: str) -> list[int]:
    """The indices asked for, the first if none; each must be there (ValueError)."""
    if not there:
        raise ValueError(f"{where} has no instances")
    for wanted in index or ():
        if wanted not in there:
            raise ValueError(f"{where} has no index {wanted}: it has {min(there)} to {max(there)}")
    return list(dict.fromkeys(index or there[:1]))
