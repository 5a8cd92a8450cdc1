"""The command `reinforce`: the policy `learned`, trained by what its streams are worth."""

from pathlib import Path
from typing import Annotated

import typer

from proactivellm.cli.app import app
from proactivellm.cli.flags import Device, Lanes, Model, Source, Target, TaskName, TrustRemoteCode
from proactivellm.cli.models import load_for, loading
from proactivellm.cli.places import check_places
from proactivellm.cli.stopping import end_interrupted
from proactivellm.cli.train import check_train_extra

Out = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder for the model with its new head, and the curve.")
]
Policy = Annotated[
    str,
    typer.Option(
        metavar="SPEC", help="Where to begin: the policy learned, with a threshold or a target."
    ),
]
Steps = Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="Updates of the head.")]
Group = Annotated[
    int,
    typer.Option(min=2, max=1000, metavar="N", help="Rollouts of a source, compared with another."),
]
Latency = Annotated[
    str, typer.Option(metavar="LAAL|DAL", help="The latency that is to be low, over the source.")
]
Weight = Annotated[
    float, typer.Option("--latency-weight", min=0, metavar="X", help="Its weight beside quality.")
]
Tolerance = Annotated[
    float,
    typer.Option(
        min=0,
        max=100,
        metavar="POINTS",
        help="The gate: latency counts only where quality (chrF, of answers F1) is at most so many "
        "points below that of the offline output of the same source.",
    ),
]
Ungated = Annotated[
    bool, typer.Option("--ungated", help="Let latency count at any quality: an ablation.")
]
LoraRank = Annotated[
    int,
    typer.Option(
        "--lora",
        min=0,
        max=1024,
        metavar="RANK",
        help="Train low-rank adapters of the model with the head, and merge them (needs the extra "
        "train). 0 leaves the model as it is.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=1_000_000_000, metavar="N", help="Of the draws.")]


@app.command()
def reinforce(
    source: Source,
    out: Out,
    target: Target = None,
    task: TaskName = None,
    model: Model = None,
    policy: Policy = "learned:0.9,min_lag=0",
    steps: Steps = 20,
    group: Group = 8,
    latency: Latency = "DAL",
    latency_weight: Weight = 0.5,
    tolerance: Tolerance = 2.0,
    ungated: Ungated = False,
    lora: LoraRank = 0,
    seed: Seed = 0,
    lanes: Lanes = 64,
    device: Device = "cpu",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train the policy learned by reward: quality against latency.

    Several streams of each source draw their READs and WRITEs; those that did better than the
    others of their source become likelier. The head begins as that of the model. The same command
    continues a run that was interrupted.

    Example:
        proactivellm reinforce --source train.de --target train.en --out my-model
    """
    with loading(model or "the model"):
        from proactivellm.evaluation.evaluate import find_calibration
        from proactivellm.policy.learned import Learned
        from proactivellm.policy.spec import parse_policy
        from proactivellm.report.progress import show_progress
        from proactivellm.rl.reinforce import Plan, Reinforcement
        from proactivellm.rl.run import reinforce as run
        from proactivellm.tasks.jobs import read_jobs

        if lora:
            check_train_extra(needs_peft=True)
        if latency not in ("LAAL", "DAL"):
            raise ValueError(f"--latency {latency}: give LAAL or DAL")
        check_places([("--out", out)], [("--source", source), ("--target", target)], model)
        jobs = read_jobs(task, source, target)
        how = {"device": device, "trust_remote_code": trust_remote_code}
        streaming = load_for(jobs, model, False, **how)
        start = parse_policy(policy, find_calibration(streaming))
        if not isinstance(start, Learned):
            raise ValueError(f"--policy {policy}: only the policy learned is trained by reward")
        plan = Plan(
            num_steps=steps,
            group=group,
            latency="LAAL" if latency == "LAAL" else "DAL",
            latency_weight=latency_weight,
            tolerance=None if ungated else tolerance / 100,
            lora_rank=lora,
            seed=seed,
        )
        training = Reinforcement(streaming, start, jobs, plan, num_lanes=lanes)
    try:
        with show_progress() as told:
            curve = run(training, out, description=Path(source).name, progress=told)
    except KeyboardInterrupt:
        end_interrupted(f"steps that are done stay in {out}; the same command continues")
    if curve:
        ends = [f"{curve[at]['reward']:.3f}" for at in (0, -1)]
        typer.echo(f"reward {ends[0]} in the first step, {ends[1]} in the last")
    typer.echo(f"model saved in {out}; `proactivellm calibrate` measures thresholds of its head")
