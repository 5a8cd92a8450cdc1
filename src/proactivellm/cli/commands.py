"""The commands and their flags. Everything heavy is imported inside, so that --help is quick."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from proactivellm import __version__
from proactivellm.cli.models import load_model, tell_settings_not_applied
from proactivellm.cli.options import (
    BleuTokenize,
    Device,
    Dtype,
    Inputs,
    Lanes,
    LatencyUnit,
    Limit,
    Log,
    Model,
    NoGate,
    OnePolicy,
    Pcm,
    PcmChannels,
    PcmRate,
    Policies,
    Quantization,
    Question,
    Rate,
    RealTime,
    Sinks,
    Source,
    Target,
    TaskName,
    Temperature,
    Times,
    TrustRemoteCode,
    View,
    make_counting,
    make_window,
)
from proactivellm.cli.places import check_places
from proactivellm.cli.shared import (
    PolicyCommand,
    check_rate,
    quiet_imports,
    table_file,
    warn,
)
from proactivellm.report.console import print_scores
from proactivellm.report.progress import show_progress

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM
    from proactivellm.stream import Job

app = typer.Typer(
    help="Models that write while they read: stream, show, evaluate, score, compare, study, "
    "calibrate, train, bench.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

CALIBRATED = ("entropy", "confidence", "attention")  # by `calibrate`, where none are named


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"proactivellm {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show it, exit."),
    ] = False,
) -> None:
    """Options before the command."""
    context.with_resource(quiet_imports())


@app.command(cls=PolicyCommand)
def stream(
    context: typer.Context,
    model: Model = None,
    policy: OnePolicy = None,
    inputs: Inputs = None,
    rate: Rate = None,
    log: Log = None,
    window: View = None,
    sinks: Sinks = 0,
    temperature: Temperature = None,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantization: Quantization = "none",
    trust_remote_code: TrustRemoteCode = False,
    pcm: Pcm = None,
    pcm_rate: PcmRate = None,
    pcm_channels: PcmChannels = None,
    real_time: RealTime = False,
    no_gate: NoGate = False,
    question: Question = None,
    times: Times = False,
) -> None:
    """Write each target while its source arrives, live.

    On a terminal the READ/WRITE path is shown, or, of recordings, what is written above the second
    it was written in. In a pipe the target alone goes to standard output, flushed as it emerges,
    one line per source, and the summary to standard error. Of several inputs of text, each
    streaming its lines one after the other, targets are written when they are complete, after the
    name of the input and a tab.
    """
    from proactivellm.cli.running import run_stream

    if not run_stream(context.params, context.obj):
        raise typer.Exit(130)


@app.command(cls=PolicyCommand)
def evaluate(
    source: Source,
    policy: Policies,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for logs, scores and curve.")],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="References, line by line.", show_default="latency scores only"
        ),
    ] = None,
    task: TaskName = None,
    model: Model = None,
    lanes: Lanes = 16,
    rate: Rate = None,
    window: View = None,
    sinks: Sinks = 0,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantization: Quantization = "none",
    trust_remote_code: TrustRemoteCode = False,
    no_gate: NoGate = False,
    limit: Limit = None,
    bleu_tokenize: BleuTokenize = "auto",
    latency_unit: LatencyUnit = "auto",
) -> None:
    """Run policies over a test set: an instance log each, scores.json, a table and a curve.

    What the folder already holds is not run again: an interrupted run is continued by the same
    command. The rate (150 unless given) is that of the clock behind elapsed times; nothing waits.
    """
    from proactivellm.evaluation.evaluate import evaluate as run_policies
    from proactivellm.evaluation.provenance import Conditions
    from proactivellm.evaluation.results import RESULT_FILES
    from proactivellm.stream import DEFAULT_RATE_WPM as RATE
    from proactivellm.tasks.jobs import read_jobs

    view, counting = make_window(window, sinks), make_counting(bleu_tokenize, latency_unit)
    _check_specs(policy)
    outputs = [("--out", out / name) for name in RESULT_FILES]
    check_places(outputs, [("--source", source), ("--target", target)], model)
    jobs = read_jobs(task, source, target)[:limit]
    check_rate(rate, any(job.media for job in jobs))
    streaming = _load_for(
        jobs,
        model,
        no_gate,
        device=device,
        dtype=dtype,
        quantization=quantization,
        trust_remote_code=trust_remote_code,
    )
    data = Path(source).name
    same = Conditions(rate_wpm=rate or RATE, window=view, counting=counting, data=data)
    try:
        with show_progress() as told:
            rows = run_policies(
                streaming, jobs, policy, out, num_lanes=lanes, conditions=same, progress=told
            )
    except KeyboardInterrupt:
        _stop(f"finished instances stay in {out}; the same command continues with the rest")
    print_scores(rows, f"{out} has all")
    warn(f"logs, scores, table and curves are in {out}")


def _check_specs(texts: "Sequence[str]") -> None:
    from proactivellm.policy.spec import PolicySpec

    for text in texts:
        PolicySpec.parse(text)


def _load_for(
    jobs: "Sequence[Job]", model: str | None, no_gate: bool, **how: Any
) -> "StreamingCausalLM":
    """The model for these sources."""
    from proactivellm.evaluation.evaluate import kind_of
    from proactivellm.output.log import TEXT

    kind = None if kind_of(jobs) == TEXT else kind_of(jobs)
    if no_gate and kind is None:
        raise ValueError("--no-gate is for recordings: leave it out, or give audio")
    return tell_settings_not_applied(load_model(model, kind, gate=not no_gate, **how))


@app.command(cls=PolicyCommand)
def calibrate(
    source: Source,
    target: Target = None,
    task: TaskName = None,
    model: Model = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:OPTIONS]",
            help="A policy with a threshold, without giving it; repeat it for more.",
            show_default=", ".join(CALIBRATED),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="Table to write.", show_default="beside the model"),
    ] = None,
    lanes: Lanes = 32,
    device: Device = "cpu",
    trust_remote_code: TrustRemoteCode = False,
    no_gate: NoGate = False,
    bleu_tokenize: BleuTokenize = "auto",
    latency_unit: LatencyUnit = "auto",
) -> None:
    """Measure thresholds on dev data, so that targets such as entropy:laal=3 work as policies."""
    from proactivellm.evaluation.calibrate import Grid
    from proactivellm.evaluation.calibrate import calibrate as measure
    from proactivellm.evaluation.calibration_table import calibrate_into
    from proactivellm.tasks.jobs import read_jobs

    grid = Grid(counting=make_counting(bleu_tokenize, latency_unit))
    check_places([("--out", out)], [("--source", source), ("--target", target)])
    jobs = read_jobs(task, source, target)
    streaming = _load_for(jobs, model, no_gate, device=device, trust_remote_code=trust_remote_code)
    file = table_file(out, streaming.folder)
    names = policy or CALIBRATED
    try:
        with show_progress() as told:
            how = partial(
                measure, streaming, grid=grid, num_lanes=lanes, description=Path(source).name
            )
            num_points = calibrate_into(file, how, jobs, names, told)
    except KeyboardInterrupt:
        _stop(f"policies that were measured to the end are in {file}")
    typer.echo(f"{num_points} points on {len(jobs)} instances written to {file}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="What to train on what (TOML).")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for checkpoints and model.")],
) -> None:
    """Train by a recipe; a run that was interrupted continues from its last checkpoint."""
    from proactivellm.cli.shared import check_train_extra
    from proactivellm.files.toml import load_toml
    from proactivellm.train.recipe import Recipe

    wish = load_toml(recipe, Recipe)
    check_train_extra(needs_peft=wish.lora is not None)
    from proactivellm.train.run import train as run

    try:
        run(wish, out)
    except KeyboardInterrupt:
        _stop(f"checkpoints stay in {out}; the same command continues from the last one")
    typer.echo(f"model saved in {out}")


def _stop(message: str) -> NoReturn:
    warn(f"interrupted: {message}")
    raise typer.Exit(130)
