"""The command `reinforce`: when to write, or when to think, trained by what streams are worth."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from proactivellm.cli.app import app
from proactivellm.cli.flags import Device, Lanes, Model, Source, Target, TaskName, TrustRemoteCode
from proactivellm.cli.models import load_for, loading
from proactivellm.cli.places import check_places
from proactivellm.cli.reinforce_flags import (
    Batch,
    CreditName,
    CreditWeight,
    GlobalPrice,
    Group,
    Latency,
    LatencyWeight,
    LearningRate,
    LeastEntropy,
    Lengths,
    LengthSteps,
    LoraRank,
    Out,
    Policy,
    Price,
    Seed,
    Steps,
    ThoughtTokens,
    Tolerance,
    Ungated,
)
from proactivellm.cli.stopping import end_interrupted
from proactivellm.cli.stream_flags import Depth
from proactivellm.cli.train import check_train_extra

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proactivellm.forward.causal_lm import StreamingCausalLM
    from proactivellm.rl.plan import Reinforcement
    from proactivellm.stream import Job

THINKING = "reasoning"  # the task of which it is trained when to think


@app.command()
def reinforce(
    source: Source,
    out: Out,
    target: Target = None,
    task: TaskName = None,
    model: Model = None,
    steps: Steps = None,
    batch: Batch = None,
    group: Group = None,
    learning_rate: LearningRate = None,
    lora: LoraRank = 0,
    seed: Seed = 0,
    lanes: Lanes = 64,
    policy: Policy = None,
    latency: Latency = None,
    latency_weight: LatencyWeight = None,
    tolerance: Tolerance = None,
    ungated: Ungated = False,
    credit: CreditName = None,
    credit_weight: CreditWeight = None,
    price: Price = None,
    global_price: GlobalPrice = None,
    lengths: Lengths = None,
    length_steps: LengthSteps = None,
    least_entropy: LeastEntropy = None,
    thought_tokens: ThoughtTokens = None,
    depth: Depth = None,
    device: Device = "cpu",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train by reward when to write, or when to think.

    Several streams of each source draw their READs and WRITEs; those that did better than the
    others of their source become likelier: quality against latency, for the head of the policy
    learned. With `--task reasoning` a model that thinks draws its thoughts: right answers against
    tokens. The same command continues a run that was interrupted.

    Example:
        proactivellm reinforce --source train.de --target train.en --out my-model
    """
    with loading(model or "the model"):
        from proactivellm.report.progress import show_progress
        from proactivellm.rl.run import reinforce as run
        from proactivellm.tasks.jobs import read_jobs

        if lora:
            check_train_extra(needs_peft=True)
        common = {"num_steps": steps, "group": group, "learning_rate": learning_rate}
        common |= {"num_sources": batch, "lora_rank": lora, "seed": seed}
        writing = {"policy": policy, "latency": latency, "latency_weight": latency_weight}
        writing |= {"tolerance": tolerance, "ungated": ungated or None}
        thinking: dict[str, Any] = {"credit": credit, "credit_weight": credit_weight}
        thinking |= {"price": price, "global_price": global_price}
        thinking |= {"lengths": lengths, "length_steps": length_steps}
        thinking |= {"least_entropy": least_entropy}
        thinking |= {"thought_tokens": thought_tokens, "depth": depth}
        thinks = task == THINKING
        _check_flags(writing if thinks else thinking, thinks)
        check_places([("--out", out)], [("--source", source), ("--target", target)], model)
        jobs = read_jobs(task, source, target)
        how = {"device": device, "trust_remote_code": trust_remote_code}
        streaming = load_for(jobs, model, False, **how)
        make, flags = (_when_to_think, thinking) if thinks else (_when_to_write, writing)
        training = make(streaming, jobs, common, _given(flags), lanes)
    try:
        with show_progress() as told:
            curve = run(training, out, description=Path(source).name, progress=told)
    except KeyboardInterrupt:
        end_interrupted(f"steps that are done stay in {out}; the same command continues")
    if curve:
        ends = [f"{curve[at]['reward']:.3f}" for at in (0, -1)]
        typer.echo(f"reward {ends[0]} in the first step, {ends[1]} in the last")
    if training.stopped:
        typer.echo(training.stopped)
    rest = "" if thinks else "; `proactivellm calibrate` measures thresholds of its head"
    typer.echo(f"model saved in {out}{rest}")


def _check_flags(others: dict[str, Any], thinks: bool) -> None:
    _refuse(_given(others), thinks, f"--task {THINKING}")


def _refuse(flags: "Iterable[str]", has: bool, other: str) -> None:
    """ValueError if there are any: they have a meaning only without the other flag, or with it."""
    for name in flags:
        needs = "without" if has else "with"
        raise ValueError(f"{_flag(name)} goes {needs} {other}: leave one of them out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


def _when_to_write(
    model: "StreamingCausalLM",
    jobs: "list[Job]",
    common: dict[str, Any],
    given: dict[str, Any],
    lanes: int,
) -> "Reinforcement":
    from proactivellm.evaluation.evaluate import find_calibration
    from proactivellm.policy.learned import Learned
    from proactivellm.policy.spec import parse_policy
    from proactivellm.rl.reinforce import PolicyPlan, PolicyReinforcement
    from proactivellm.rl.reward import Latency as LatencyName

    if (latency := given.get("latency")) not in (None, *get_args(LatencyName)):
        raise ValueError(f"--latency {latency}: give LAAL or DAL")
    spec = given.pop("policy", "learned:0.9,min_lag=0")
    start = parse_policy(spec, find_calibration(model))
    if not isinstance(start, Learned):
        raise ValueError(f"--policy {spec}: only the policy learned is trained by reward")
    if given.pop("ungated", False):
        given["tolerance"] = None
    elif "tolerance" in given:
        given["tolerance"] /= 100
    plan = PolicyPlan(**_given(common), **given)
    return PolicyReinforcement(model, start, jobs, plan, num_lanes=lanes)


def _when_to_think(
    model: "StreamingCausalLM",
    jobs: "list[Job]",
    common: dict[str, Any],
    given: dict[str, Any],
    lanes: int,
) -> "Reinforcement":
    from proactivellm.rl.credit import Credit
    from proactivellm.rl.hrpo import ThinkingReinforcement
    from proactivellm.rl.judging import ThinkingPlan
    from proactivellm.session.limits import Limits

    if (credit := given.get("credit")) not in (None, *get_args(Credit)):
        raise ValueError(f"--credit {credit}: give {', '.join(get_args(Credit))}")
    compares = {"credit_weight", "price", "global_price"}
    shortens = {"lengths", "length_steps", "least_entropy"}
    copies = credit == "likelihood"
    others = sorted((compares if copies else shortens) & given.keys())
    _refuse(others, copies, "--credit likelihood")
    if "lengths" in given:
        given["lengths"] = _lengths(given["lengths"])
    if (rising := shortens & given.keys() - {"lengths"}) and len(given.get("lengths", ())) < 2:
        raise ValueError(
            f"{_flag(min(rising))} is for several --lengths: give them, or leave it out"
        )
    bounds = {name: given.pop(name) for name in ("thought_tokens", "depth") if name in given}
    if "credit_weight" in given:
        given["weight"] = given.pop("credit_weight")
    plan = ThinkingPlan(**_given(common), **given)
    return ThinkingReinforcement(model, jobs, plan, Limits(streams=lanes, **bounds))


def _lengths(given: str) -> tuple[int, ...]:
    try:
        lengths = tuple(int(each) for each in given.split(","))
    except ValueError:
        lengths = ()
    if not lengths or min(lengths) < 1:
        raise ValueError(f"--lengths {given}: give whole numbers from 1, such as 30,60")
    return lengths
