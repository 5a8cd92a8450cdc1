"""A study carried out, run by run: train, calibrate, evaluate. What is done is not done again."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from proactivellm.evaluation.calibrate import Grid, calibrate
from proactivellm.evaluation.control import shuffled_jobs
from proactivellm.evaluation.evaluate import evaluate
from proactivellm.evaluation.learned import ensure_head
from proactivellm.evaluation.provenance import calibration_inputs
from proactivellm.files.digest import digest_text
from proactivellm.files.lock import locked
from proactivellm.files.note import check_note
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.metrics.folders import folder_name
from proactivellm.metrics.measures import check_references
from proactivellm.modality.loading import load
from proactivellm.output.log import LOG_FILE, read_log
from proactivellm.policy.base import Policy
from proactivellm.policy.calibration import Calibration
from proactivellm.policy.spec import PolicySpec, parse_policy
from proactivellm.report.progress import Progress
from proactivellm.stream import Job
from proactivellm.study.arms import Arm, Run, Study
from proactivellm.study.place import Place, run_recipe
from proactivellm.tasks.data import DataSource, read_items
from proactivellm.tasks.jobs import item_job
from proactivellm.train.recipe import Recipe
from proactivellm.train.stopping import Stops

_CALIBRATION_NOTE = "calibration-inputs.json"


def execute(
    study: Study,
    run: Run,
    place: Place,
    num_lanes: int = 64,
    progress: Progress | None = None,
    stops: Stops | None = None,
) -> None:
    """Trains, calibrates and evaluates one run of an arm, and first those whose models it uses.

    Args:
        num_lanes: streams advanced by one forward.
        progress: called as the evaluation goes on.
        stops: of the training, see `train.run`.

    Raises:
        ValueError: recipe, data or policies do not fit.
    """
    for data in study.data.values():  # what cannot be scored is told before anything is trained
        _read_jobs(study, data.test, "test")
        _read_jobs(study, data.dev, "valid")
    for source in study.head:
        _read_jobs(study, source, "valid")
    owner = study.trained(run)
    recipe = run_recipe(study, owner, place)
    _check_depth(study.arms[run.arm].depth, run, recipe)
    _train(study, owner, place, stops)
    if stops and stops.came:  # when the last update was done: there is a model, and time to stop
        raise KeyboardInterrupt
    model = load(place.model(owner), trust_remote_code=recipe.backbone.trust_remote_code)
    shuffled = study.arms[run.arm].shuffle
    if shuffled:  # The schedules to be shuffled are in the logs of that arm.
        execute(study, run._replace(arm=shuffled), place, num_lanes, progress, stops)
    for name in study.data:
        try_on = _replay_shuffled if shuffled else _decide
        told = _named(f"{run.name} {name}".rstrip(), progress)
        try_on(study, (run, name), place, model, num_lanes, told)


def _check_depth(depth: int | None, run: Run, recipe: Recipe) -> None:
    deepest = 0 if recipe.thinking is None else len(recipe.thinking.stages) + 1
    if depth is not None and depth > deepest:
        can = f"1 to {deepest}" if deepest else "none, its recipe has no [thinking]"
        raise ValueError(f"arms.{run.arm}: depth {depth}: its model has {can}")


def _decide(
    study: Study,
    where: tuple[Run, str],
    place: Place,
    model: StreamingCausalLM,
    num_lanes: int,
    progress: Progress | None,
) -> None:
    """Calibrates and evaluates the policies of a run on one of the sets; `where` names both."""
    run, name = where
    arm, data = study.arms[run.arm], study.data[name]
    plan = arm.calibration or study.calibration
    dev = _read_jobs(study, data.dev, "valid")
    table = None
    if plan.policies:
        grid = replace(plan.grid, counting=study.counting)
        file = place.calibration(run, name)
        jobs = dev, [job for each in study.head for job in _read_jobs(study, each, "valid")]
        table = _calibrate(model, jobs, (plan.policies, grid), file, num_lanes, progress)
    policies = dict(_resolved(run.name, requests(study, arm), table))
    evaluate(
        model,
        _read_jobs(study, data.test, "test"),
        policies,
        place.results(run, name),
        num_lanes=num_lanes,
        conditions=study.conditions(arm),
        progress=progress,
    )


def requests(study: Study, arm: Arm) -> Sequence[str]:
    """The policies of an arm as they are asked for.

    If it names none: those of the study, or of the arm whose schedules it replays.
    """
    if arm.policies is not None:
        return arm.policies
    return requests(study, study.arms[arm.shuffle]) if arm.shuffle else study.policies


def _resolved(
    name: str, texts: Sequence[str], table: Calibration | None
) -> Iterator[tuple[str, Policy]]:
    """The policies asked for; a target that the arm's calibration does not reach is left out."""
    for text in texts:
        PolicySpec.parse(text)  # a mistake in the spec is an error, not a target out of reach
        try:
            yield text, parse_policy(text, table, whole_source=True)
        except ValueError as error:
            warnings.warn(f"{name}: left out: {error}", stacklevel=2)


def _read_jobs(study: Study, data: DataSource, split: str) -> list[Job]:
    """The jobs of the dev or the test set.

    Raises:
        ValueError: a file is missing or does not fit, or a reference cannot be scored.
    """
    items = enumerate(read_items(data, split))
    jobs = [item_job(index, item, study.task) for index, item in items]
    check_references(jobs)
    return jobs


def _train(study: Study, run: Run, place: Place, stops: Stops | None) -> None:
    from proactivellm.rl.on_policy import train

    origin = study.arms[run.arm].origin
    if origin is not None:
        _train(study, study.run(origin, run.seed), place, stops)
    train(run_recipe(study, run, place), place.model(run), stops)


def _calibrate(
    model: StreamingCausalLM,
    whole: tuple[Sequence[Job], Sequence[Job]],
    plan: tuple[Sequence[str], Grid],
    file: Path,
    num_lanes: int,
    progress: Progress | None,
) -> Calibration:
    """Measures the policies of a plan over its grid, or reads what was measured.

    `whole` has those to calibrate on, and those that a head is trained on: none = the same.
    """
    (policies, grid), (jobs, head_jobs) = plan, whole
    inputs = calibration_inputs(model, jobs, policies, grid)
    if head_jobs:
        inputs["head"] = digest_text(job.name for job in head_jobs)
    with locked(file.parent):
        check_note(file.with_name(_CALIBRATION_NOTE), inputs, continues=file.exists())
        if not file.exists():
            if model.folder is not None:
                ensure_head(model, policies, head_jobs or jobs, model.folder, num_lanes=num_lanes)
            table = calibrate(
                model,
                jobs,
                policies,
                grid=grid,
                num_lanes=num_lanes,
                progress=_named("calibration", progress, keep_what=False),
            )
            table.save(file)
    return Calibration.load(file)


def _replay_shuffled(
    study: Study,
    where: tuple[Run, str],
    place: Place,
    model: StreamingCausalLM,
    num_lanes: int,
    progress: Progress | None,
) -> None:
    """Evaluates the schedules of the arm that this one shuffles, policy by policy."""
    run, name = where
    other = run._replace(arm=str(study.arms[run.arm].shuffle))
    jobs = _read_jobs(study, study.data[name].test, "test")
    evaluated = partial(evaluate, num_lanes=num_lanes, progress=progress)
    for text in requests(study, study.arms[run.arm]):
        file = place.results(other, name) / folder_name(text) / LOG_FILE
        if not file.exists():  # that arm has said why
            missing = f"{run.name}: left out: {other.name} has no results of {text}"
            warnings.warn(missing, stacklevel=2)
            continue
        log = read_log(file)
        policy: dict[str, Policy] = {text: parse_policy(log[0].policy, whole_source=True)}
        shuffled, same = list(shuffled_jobs(log, jobs)), study.conditions(study.arms[run.arm])
        evaluated(model, shuffled, policy, place.results(run, name), conditions=same)


def _named(name: str, progress: Progress | None, keep_what: bool = True) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(f"{name}: {what}" if keep_what else name, done, total)
