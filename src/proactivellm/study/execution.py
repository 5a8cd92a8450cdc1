"""A study carried out, arm by arm: train, calibrate, evaluate. What is done is not done again."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from proactivellm.evaluation.calibrate import calibrate
from proactivellm.evaluation.control import shuffled_jobs
from proactivellm.evaluation.evaluate import evaluate
from proactivellm.evaluation.provenance import Conditions, calibration_inputs
from proactivellm.files.lock import locked
from proactivellm.files.note import check_note
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.metrics.folders import folder_name
from proactivellm.metrics.measures import check_references
from proactivellm.modality.loading import load
from proactivellm.output.log import LOG_FILE, read_log
from proactivellm.policy.base import Policy
from proactivellm.policy.calibration import CALIBRATION_FILE, Calibration
from proactivellm.policy.spec import PolicySpec, parse_policy
from proactivellm.report.progress import Progress
from proactivellm.stream import Job
from proactivellm.study.arms import Arm, CalibrationPlan, Study, arm_recipe
from proactivellm.tasks.data import DataSource, read_items
from proactivellm.tasks.jobs import item_job

MODEL_FOLDER = "model"
RESULTS_FOLDER = "results"
CALIBRATION_NOTE = "calibration-inputs.json"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a study lies, and where its arms go.

    Attributes:
        recipes: folder from which recipes are found.
        out: folder of the results, one folder per arm.
    """

    recipes: Path
    out: Path

    def model(self, arm: str) -> Path:
        """The folder of an arm's model."""
        return self.out / arm / MODEL_FOLDER

    def results(self, arm: str) -> Path:
        """The evaluation folder of an arm."""
        return self.out / arm / RESULTS_FOLDER


def run_arm(
    study: Study,
    name: str,
    place: Place,
    num_lanes: int = 64,
    progress: Progress | None = None,
) -> None:
    """Train, calibrate and evaluate one arm, and first the arm whose model it uses.

    Args:
        study: the study.
        name: of the arm.
        place: where it lies.
        num_lanes: streams advanced by one forward.
        progress: called as the evaluation goes on.

    Raises:
        ValueError: if recipe, data or policies do not fit.
    """
    arm, owner = study.arms[name], study.owner(name)
    jobs = make_jobs(study, study.test)
    make_jobs(study, study.dev)  # what cannot be scored is told before anything is trained
    _train(study, owner, place)
    recipe = arm_recipe(study, owner, place.recipes)
    model = load(place.model(owner), trust_remote_code=recipe.backbone.trust_remote_code)
    if arm.shuffle:
        run_arm(study, arm.shuffle, place, num_lanes, progress)
        _replay_shuffled(study, name, place, model, jobs, num_lanes)
        return
    plan = arm.calibration or study.calibration
    table = _calibrate(study, plan, model, place.out / name / CALIBRATION_FILE, num_lanes, progress)
    policies = dict(_resolved(name, requests(study, arm), table))
    evaluate(
        model,
        jobs,
        policies,
        place.results(name),
        num_lanes=num_lanes,
        conditions=Conditions(counting=study.counting),
        progress=_named(name, progress),
    )


def requests(study: Study, arm: Arm) -> Sequence[str]:
    """The policies of an arm, as they are asked for.

    Args:
        study: the study.
        arm: of it.

    Returns:
        Specs; those of the arm whose schedules it replays, if it does and names none.
    """
    if arm.policies is not None:
        return arm.policies
    return requests(study, study.arms[arm.shuffle]) if arm.shuffle else study.policies


def _resolved(
    name: str, texts: Sequence[str], table: Calibration | None
) -> Iterator[tuple[str, Policy]]:
    """The policies asked for; a target that the arm's calibration does not reach is left out."""
    for text in texts:
        PolicySpec.parse(text)
        try:
            yield text, parse_policy(text, table)
        except ValueError as error:
            warnings.warn(f"{name}: left out: {error}", stacklevel=2)


def make_jobs(study: Study, data: DataSource) -> list[Job]:
    """The instances of a set.

    Args:
        study: knows the task.
        data: dev or test.

    Returns:
        One job per instance.

    Raises:
        ValueError: if a file is missing or does not fit, or a reference cannot be scored.
    """
    split = "valid" if data == study.dev else "test"
    items = enumerate(read_items(data, split))
    jobs = [item_job(index, item, study.task) for index, item in items]
    check_references(jobs)
    return jobs


def _train(study: Study, name: str, place: Place) -> None:
    from proactivellm.train.run import train

    train(arm_recipe(study, name, place.recipes), place.model(name))


def _calibrate(
    study: Study,
    plan: CalibrationPlan,
    model: StreamingCausalLM,
    file: Path,
    num_lanes: int,
    progress: Progress | None,
) -> Calibration | None:
    if not plan.policies:
        return None
    jobs, grid = make_jobs(study, study.dev), replace(plan.grid, counting=study.counting)
    inputs = calibration_inputs(model, jobs, plan.policies, grid)
    with locked(file.parent):
        check_note(file.with_name(CALIBRATION_NOTE), inputs, continues=file.exists())
        if not file.exists():
            table = calibrate(
                model,
                jobs,
                plan.policies,
                grid=grid,
                num_lanes=num_lanes,
                progress=_named(f"{file.parent.name}: calibration", progress, keep_what=False),
            )
            table.save(file)
    return Calibration.load(file)


def _replay_shuffled(
    study: Study,
    name: str,
    place: Place,
    model: StreamingCausalLM,
    jobs: Sequence[Job],
    num_lanes: int,
) -> None:
    """The arm's own folder, policy by policy, with the schedules of the arm it shuffles."""
    other = str(study.arms[name].shuffle)
    same = Conditions(counting=study.counting)
    for text in requests(study, study.arms[name]):
        log = read_log(place.results(other) / folder_name(text) / LOG_FILE)
        policy: dict[str, Policy] = {text: parse_policy(log[0].policy)}
        shuffled = list(shuffled_jobs(log, jobs))
        evaluate(model, shuffled, policy, place.results(name), num_lanes=num_lanes, conditions=same)


def _named(arm: str, progress: Progress | None, keep_what: bool = True) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(f"{arm}: {what}" if keep_what else arm, done, total)
