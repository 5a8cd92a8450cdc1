"""The command `show`: why the model spoke when it did, for single instances."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proactivellm.backbone.bundled import DEFAULT_MODEL
from proactivellm.cli.app import app
from proactivellm.cli.flags import Device, Dtype, Model, OnePolicy, TrustRemoteCode
from proactivellm.cli.messages import warn
from proactivellm.cli.models import load_model, loading, tell_settings_not_applied
from proactivellm.cli.places import check_places
from proactivellm.cli.policies import PolicyCommand, choose_policy

if TYPE_CHECKING:
    from proactivellm.decisions.trace import Trace
    from proactivellm.forward.causal_lm import StreamingCausalLM
    from proactivellm.output.log import Instance
    from proactivellm.session.window import Window
    from proactivellm.stream import Job

PICTURES = (".png", ".svg", ".pdf")
Recorded = Annotated[
    Path | None,
    typer.Argument(
        metavar="LOG|TRACES",
        help="A log of `evaluate` (or its folder, if it holds one policy), or what --json wrote.",
        show_default="give --source or --source-file instead",
    ),
]
Index = Annotated[
    list[int] | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Which source to show, counted from 0. Repeat the flag for more.",
        show_default="the first",
    ),
]
SourceText = Annotated[str | None, typer.Option(metavar="TEXT", help="A source to run.")]
SourceFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="A file of sources to run, one a line.")
]
Picture = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", help="Draw a picture (.png, .svg, .pdf) or a page (.html)."
    ),
]
AsJson = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write everything that was measured, as JSON."),
]


@app.command(cls=PolicyCommand)
def show(
    recorded: Recorded = None,
    source: SourceText = None,
    source_file: SourceFile = None,
    index: Index = None,
    model: Model = None,
    policy: OnePolicy = None,
    out: Picture = None,
    as_json: AsJson = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show why each word was written when it was.

    A source is run, and each decision is printed: what had been read, what was held back, and for
    what reason. A source of a log is run again, with the model and the policy that the log names,
    or with those given here.

    Example:
        proactivellm show --source "Ich habe gestern einen alten Freund getroffen."
    """
    from proactivellm.metrics.folders import find_logs

    given = [name for name in (recorded, source, source_file) if name is not None]
    if len(given) != 1:
        raise ValueError("give exactly one of LOG, --source and --source-file")
    is_traces = recorded is not None and recorded.is_file() and recorded.suffix == ".json"
    logs = [] if recorded is None or is_traces else find_logs(recorded).logs.values()
    check_places(
        [("--out", out), ("--json", as_json)],
        [
            ("--source-file", source_file),
            ("TRACES", recorded if is_traces else None),
            *(("LOG", log) for log in logs),
        ],
        model,
    )
    if recorded is not None and is_traces:
        from proactivellm.decisions.trace import read_traces

        found = {trace.index: trace for trace in read_traces(recorded)}
        traces = [found[i] for i in _chosen(index, list(found), str(recorded))]
        _check_out(out, len(traces))
    else:
        with loading(model or (f"the model of {recorded}" if recorded else DEFAULT_MODEL)):
            if recorded is not None:
                wish = _wish_from_log(recorded, index, model, policy)
            else:
                wish = _wish_from_text(source, source_file, index, model, policy)
            _check_out(out, len(wish.jobs))  # before a model is loaded
            streaming = _load(wish, device, dtype, trust_remote_code)
        traces = _record(wish, streaming)
    if as_json is not None:
        from proactivellm.decisions.trace import write_traces

        write_traces(as_json, traces)
    _print(traces)
    if out is not None:
        _draw(traces, out)
    if written := [str(file) for file in (out, as_json) if file is not None]:
        warn(f"written: {', '.join(written)}")


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """What is to be run: sources under one policy."""

    jobs: "Sequence[Job]"
    model: str | None  # None = the bundled default
    policy: str | None  # None = that of the model
    request: str | None = None  # the policy as it was asked for
    run: Mapping[str, Any] = field(default_factory=dict)  # facts of the run behind the log
    window: "Window | None" = None  # of that run
    logged: "Sequence[Instance]" = ()  # what should come out
    log: Path | None = None  # names the model


def _chosen(index: Sequence[int] | None, there: Sequence[int], where: str) -> list[int]:
    """The indices asked for, the first if none; each must be there."""
    if not there:
        raise ValueError(f"{where} has no instances")
    for wanted in index or ():
        if wanted not in there:
            raise ValueError(f"{where} has no index {wanted}: it has {min(there)} to {max(there)}")
    return list(dict.fromkeys(index or there[:1]))


def _check_out(out: Path | None, num_instances: int) -> None:
    if out is None or out.suffix == ".html":
        return
    if out.suffix not in PICTURES:
        raise ValueError(f"--out {out}: give a file that ends in {', '.join(PICTURES)} or .html")
    if num_instances > 1:
        raise ValueError(
            f"--out {out}: a picture holds one instance, not {num_instances}; give .html"
        )


def _wish_from_text(
    source: str | None,
    source_file: str | None,
    index: Sequence[int] | None,
    model: str | None,
    policy: str | None,
) -> _Wish:
    from proactivellm.files.lines import read_lines
    from proactivellm.policy.spec import PolicySpec
    from proactivellm.stream import Job

    if policy is not None:
        PolicySpec.parse(policy)  # a mistake is told before the model is loaded
    lines = [source] if source is not None else list(read_lines(str(source_file)))
    where = "--source" if source is not None else str(source_file)
    chosen = _chosen(index, range(len(lines)), where)
    jobs = [Job(index=i, source=str(lines[i])) for i in chosen]
    return _Wish(jobs=jobs, model=model, policy=policy, request=policy)


def _wish_from_log(
    path: Path, index: Sequence[int] | None, model: str | None, policy: str | None
) -> _Wish:
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
    chosen = [instances[i] for i in _chosen(index, list(instances), str(log))]
    if chosen[0].source_type == "speech":
        raise ValueError(f"{log} is of recordings: `show` is for sources of text")
    spec = policy if policy and not is_named else chosen[0].policy
    if spec == "unknown":
        raise ValueError(f"{log} does not name its policy: give --policy")
    same_model = model in (None, run.get("model"))
    return _Wish(
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


def _load(wish: _Wish, device: str, dtype: str, trust_remote_code: bool) -> "StreamingCausalLM":
    if dtype == "auto":
        dtype = wish.run.get("dtype") or dtype
    try:
        streaming = load_model(
            wish.model,
            device=device,
            dtype=dtype,
            quantization=wish.run.get("quantization") or "none",
            trust_remote_code=trust_remote_code,
        )
    except ValueError as error:
        where = f"the model of {wish.log}: " if wish.log else ""
        remedy = "; name it with --model" if wish.log else ""
        raise ValueError(f"{where}{error}{remedy}") from None
    return tell_settings_not_applied(streaming)


def _record(wish: _Wish, streaming: "StreamingCausalLM") -> "list[Trace]":
    """Runs what is wished for; warns where it is not what the log has."""
    from proactivellm.decisions.record import record
    from proactivellm.evaluation.default_policy import default_spec

    policy = choose_policy(streaming, wish.policy)
    name = wish.model or DEFAULT_MODEL
    traces = [
        record(streaming, policy, job, window=wish.window, model_name=name) for job in wish.jobs
    ]
    request = default_spec(streaming) if wish.policy is None else wish.request
    traces = [replace(trace, request=request) for trace in traces]
    for trace, logged in zip(traces, wish.logged, strict=False):
        if not _came_out(trace, logged):
            warn(
                f"warning: instance {logged.index} came out otherwise than in the log, which has: "
                f"{logged.prediction}"
            )
    return traces


def _came_out(trace: "Trace", logged: "Instance") -> bool:
    """Whether it is as in the log; delays are not comparable where tokens are decided on."""
    by_word = len(logged.delays) == len(trace.delays)
    same = not by_word or list(logged.delays) == trace.delays
    return same and trace.prediction == logged.prediction


def _print(traces: "Sequence[Trace]") -> None:
    from rich.console import Console

    from proactivellm.report.decision_lines import terminal_view

    console = Console(highlight=False)
    for number, trace in enumerate(traces):
        console.print(*[""] * bool(number), terminal_view(trace), sep="\n")


def _draw(traces: "Sequence[Trace]", out: Path) -> None:
    from proactivellm.report.decision_page import decision_page
    from proactivellm.report.decision_picture import draw_trace

    try:
        decision_page(traces, out) if out.suffix == ".html" else draw_trace(traces[0], out)
    except ImportError as error:
        raise ValueError(str(error)) from None
