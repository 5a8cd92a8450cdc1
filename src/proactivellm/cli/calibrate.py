"""The command `calibrate`: thresholds of policies, measured on dev data."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from proactivellm.cli.app import app
from proactivellm.cli.flags import (
    Adapter,
    BleuTokenize,
    Block,
    Device,
    Lanes,
    LatencyUnit,
    MergeAdapter,
    Model,
    NoGate,
    Source,
    Target,
    TaskName,
    TrustRemoteCode,
    make_counting,
)
from proactivellm.cli.models import load_for, loading
from proactivellm.cli.places import check_places, file_beside
from proactivellm.cli.policies import PolicyCommand
from proactivellm.cli.stopping import end_interrupted

CALIBRATED = ("entropy", "confidence", "attention")  # where none are named
Policies = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[:OPTIONS]",
        help="A policy that has a threshold, without the threshold. Repeat the flag for more.",
        show_default=", ".join(CALIBRATED),
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|DIR", help="Where to write the table.", show_default="beside the model"
    ),
]
HeadSource = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Train the head of the policy learned anew, on these sources. They need no target.",
        show_default="those of --source, if the model has no head",
    ),
]


@app.command(cls=PolicyCommand)
def calibrate(
    source: Source,
    target: Target = None,
    task: TaskName = None,
    model: Model = None,
    adapter: Adapter = None,
    merge_adapter: MergeAdapter = False,
    policy: Policies = None,
    out: Out = None,
    head_source: HeadSource = None,
    lanes: Lanes = 128,
    device: Device = "cpu",
    trust_remote_code: TrustRemoteCode = False,
    no_gate: NoGate = False,
    block: Block = None,
    bleu_tokenize: BleuTokenize = "auto",
    latency_unit: LatencyUnit = "auto",
) -> None:
    """Measure which threshold gives which lag, on dev data.

    The table lies beside the model. From then on a target can be named instead of a threshold:
    entropy:laal=3, or rco, al, dal.

    Example:
        proactivellm calibrate --model MODEL --source dev.de --target dev.en
    """
    with loading(model or adapter or "the model"):
        from proactivellm.evaluation.calibrate import Grid, check_dev
        from proactivellm.evaluation.calibrate import calibrate as measure
        from proactivellm.evaluation.calibration_table import calibrate_into
        from proactivellm.evaluation.learned import ensure_head
        from proactivellm.policy.calibration import CALIBRATION_FILE
        from proactivellm.report.progress import show_progress
        from proactivellm.tasks.jobs import read_jobs

        grid = Grid(counting=make_counting(bleu_tokenize, latency_unit))
        given = [("--source", source), ("--target", target), ("--head-source", head_source)]
        check_places([("--out", out)], given)
        jobs = read_jobs(task, source, target)
        check_dev(jobs)  # before a head is trained, which takes minutes
        unlabelled = read_jobs(task, head_source) if head_source else jobs
        how = {"device": device, "trust_remote_code": trust_remote_code}
        adapted = {"adapter": adapter, "merge": merge_adapter}
        streaming = load_for(jobs, model, no_gate, block=block, **adapted, **how)
        file = file_beside(out, streaming.folder, CALIBRATION_FILE)
    try:
        with show_progress() as told:
            run = partial(
                measure, streaming, grid=grid, num_lanes=lanes, description=Path(source).name
            )
            names = policy or CALIBRATED
            head = ensure_head(
                *(streaming, names, unlabelled, file.parent),
                anew=head_source is not None,
                num_lanes=lanes,
                description=Path(head_source or source).name,
                progress=told,
            )
            if head is not None:
                typer.echo(f"head of learned: AUC {head.about['auc']} on sources held back")
            points = calibrate_into(file, run, jobs, names, told)
    except KeyboardInterrupt:
        end_interrupted(f"policies that were measured to the end are in {file}")
    typer.echo(f"{len(points)} points on {len(jobs)} instances written to {file}")
    if num_degenerate := sum(bool(point.degenerate) for point in points):
        typer.echo(f"{num_degenerate} of them are degenerate: no target leads there")
