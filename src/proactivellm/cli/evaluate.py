"""The command `evaluate`: policies over a test set, with a log, scores and a curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proactivellm.cli.app import app
from proactivellm.cli.completion import complete_policy
from proactivellm.cli.flags import (
    Adapter,
    BleuTokenize,
    Block,
    Device,
    Dtype,
    KvName,
    Lanes,
    LatencyUnit,
    LayoutName,
    MergeAdapter,
    Model,
    NoGate,
    Quantization,
    Sinks,
    Source,
    Speculate,
    Target,
    TaskName,
    TrustRemoteCode,
    View,
    check_rate,
    make_counting,
    make_window,
    parse_kv,
)
from proactivellm.cli.messages import warn
from proactivellm.cli.models import load_for, loading, speculate_as
from proactivellm.cli.on_cluster import NumWorkers, OnRay, check_cluster, streaming_by
from proactivellm.cli.places import check_places
from proactivellm.cli.policies import PolicyCommand
from proactivellm.cli.stopping import end_interrupted
from proactivellm.cli.stream_flags import Depth
from proactivellm.cli.watching import (
    AttendChunks,
    Chunk,
    DropTokens,
    Look,
    Past,
    RecallChunks,
    VideoOptions,
)

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM
    from proactivellm.forward.int8 import Kv
    from proactivellm.session.window import Window
    from proactivellm.stream import Job

Policies = Annotated[
    list[str],
    typer.Option(
        autocompletion=complete_policy,
        metavar="SPEC",
        help="A policy of the table below. Repeat the flag for more of them.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        metavar="WPM",
        help="Words (or characters) per minute at which texts arrive on the clock of the log.",
        show_default="150",
    ),
]
DecodeRate = Annotated[
    float | None,
    typer.Option(
        metavar="STEPS",
        help="Steps per second on the clock of the log, in place of the time that each one takes.",
        show_default="as measured",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Use the first N sources only.", show_default="all"),
]
Out = Annotated[
    Path,
    typer.Option(metavar="DIR", help="Folder to write the logs, the scores and the curve to."),
]


@app.command(cls=PolicyCommand)
def evaluate(
    context: typer.Context,
    source: Source,
    policy: Policies,
    out: Out,
    target: Target = None,
    task: TaskName = None,
    model: Model = None,
    adapter: Adapter = None,
    merge_adapter: MergeAdapter = False,
    lanes: Lanes = 16,
    rate: Rate = None,
    decode_rate: DecodeRate = None,
    depth: Depth = None,
    window: View = None,
    sinks: Sinks = 0,
    speculate: Speculate = None,
    kv: KvName = "none",
    layout: LayoutName = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantization: Quantization = "none",
    trust_remote_code: TrustRemoteCode = False,
    no_gate: NoGate = False,
    block: Block = None,
    drop_tokens: DropTokens = None,
    look: Look = None,
    chunk: Chunk = None,
    attend_chunks: AttendChunks = None,
    recall_chunks: RecallChunks = None,
    past: Past = None,
    limit: Limit = None,
    bleu_tokenize: BleuTokenize = "auto",
    latency_unit: LatencyUnit = "auto",
    ray: OnRay = False,
    workers: NumWorkers = None,
) -> None:
    """Run policies over a test set: quality against latency.

    The folder gets an instance log per policy, scores.json, a table and a curve. What it already
    holds is not run again: the same command continues a run that was interrupted. Nothing waits
    for a clock here: --rate and --decode-rate only enter the elapsed times of the log.

    Example:
        proactivellm evaluate --source test.de --target test.en --policy wait-k:3 --out results
    """
    with loading(model or adapter or "the model", quantization):
        from proactivellm.evaluation.evaluate import evaluate_by, kind_of
        from proactivellm.evaluation.provenance import Conditions
        from proactivellm.evaluation.results import RESULT_FILES
        from proactivellm.policy.spec import PolicySpec
        from proactivellm.report.console import print_scores
        from proactivellm.report.progress import show_progress
        from proactivellm.stream import DEFAULT_RATE_WPM
        from proactivellm.tasks.jobs import read_jobs

        check_cluster(ray, workers, device)
        video = VideoOptions.of(context.params)
        asked = _Asked(flags=context.params, kv=parse_kv(kv), video=video)
        view, counting = make_window(window, sinks), make_counting(bleu_tokenize, latency_unit)
        for text in policy:
            PolicySpec.parse(text)
        outputs = [("--out", out / name) for name in RESULT_FILES]
        check_places(outputs, [("--source", source), ("--target", target)], model)
        jobs = read_jobs(task, source, target)[:limit]
        check_rate(rate, any(job.media for job in jobs))
        asks = all(job.source for job in jobs)
        video.check(kind_of(jobs), asks, "each video needs one in the manifest")
        clock: dict[str, Any] = {"rate_wpm": rate or DEFAULT_RATE_WPM}
        clock["step_s"] = _step_s(decode_rate)
        load = partial(_load, jobs, asked)
        streaming = load()
        limits: dict[str, Any] = {"depth": depth, "sight": video.sight()}
        _check_limits(limits, view, streaming)
    about = Path(source).name
    conditions = Conditions(window=view, counting=counting, data=about, **limits, **clock)
    try:
        with streaming_by(workers, load, streaming, lanes, ray) as by, show_progress() as told:
            rows = evaluate_by(
                by, streaming, jobs, policy, out, conditions=conditions, progress=told
            )
    except KeyboardInterrupt:
        end_interrupted(f"finished instances stay in {out}; the same command continues")
    print_scores(rows, f"{out} has all")
    warn(f"logs, scores, table and curves are in {out}")


def _check_limits(asked: dict[str, Any], view: "Window | None", model: "StreamingCausalLM") -> None:
    """Raises ValueError if the model cannot stream under them, before anything is read."""
    from proactivellm.session.limits import Limits
    from proactivellm.session.sight import check_sight
    from proactivellm.session.thoughts import check_thinking

    limits = Limits(**asked)
    check_thinking(model, view, limits)
    check_sight(limits.sight, model, view is not None)


def _step_s(decode_rate: float | None) -> float | None:
    """What each step takes; ValueError unless the rate is above 0."""
    if decode_rate is None:
        return None
    if not 0 < decode_rate < inf:
        raise ValueError(f"--decode-rate {decode_rate:g}: give steps per second, above 0")
    return 1 / decode_rate


@dataclass(frozen=True)
class _Asked:
    """What was asked of the model, as far as it was looked at before it is loaded."""

    flags: "Mapping[str, Any]"  # of the command, by name
    kv: "Kv | None"
    video: VideoOptions


def _load(jobs: "Sequence[Job]", asked: _Asked) -> "StreamingCausalLM":
    """The model as it streams these sources; workers on other machines load it by this, too."""
    flags = asked.flags
    how = {k: flags[k] for k in ("device", "dtype", "quantization", "trust_remote_code")}
    given = {k: flags[k] for k in ("adapter", "layout", "block")}
    given["merge"] = flags["merge_adapter"]
    streaming = load_for(jobs, flags["model"], flags["no_gate"], **given, **how)
    streaming.compress_cache(asked.kv)
    speculate_as(flags["speculate"], streaming, any(job.media for job in jobs), **how)
    if asked.video.given:
        asked.video.apply(streaming)
    return streaming
