"""A study carried out, arm by arm: train, calibrate, evaluate. What is done is not done again."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from proactivellm.evaluation.calibrate import calibrate
from proactivellm.evaluation.control import shuffled_jobs
from proactivellm.evaluation.evaluate import evaluate
from proactivellm.evaluation.learned import ensure_head
from proactivellm.evaluation.provenance import Conditions, calibration_inputs
from proactivellm.files.lock import locked
from proactivellm.files.note import check_note
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.metrics.folders import SCORES_FILE, folder_name
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

_CALIBRATION_NOTE = "calibration-inputs.json"


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folder from which recipes are found, and that of the results, with one for each arm."""

    recipes: Path
    out: Path

    def model(self, arm: str) -> Path:
        """The folder of an arm's model."""
        return self.out / arm / "model"

    def results(self, arm: str) -> Path:
        """The evaluation folder of an arm."""
        return self.out / arm / "results"

    def has_results(self, arm: str) -> bool:
        """Whether an arm has been evaluated: its first policy has scores."""
        return (self.results(arm) / SCORES_FILE).exists()


def run_arm(
    study: Study,
    name: str,
    place: Place,
    num_lanes: int = 64,
    progress: Progress | None = None,
) -> None:
    """Trains, calibrates and evaluates one arm, and first the arm whose model it uses.

    Args:
        num_lanes: streams advanced by one forward.
        progress: called as the evaluation goes on.

    Raises:
        ValueError: recipe, data or policies do not fit.
    """
    arm, owner = study.arms[name], study.owner(name)
    jobs = _read_jobs(study, study.test)
    _read_jobs(study, study.dev)  # what cannot be scored is told before anything is trained
    _train(study, owner, place)
    recipe = arm_recipe(study, owner, place.recipes)
    model = load(place.model(owner), trust_remote_code=recipe.backbone.trust_remote_code)
    if arm.shuffle:
        # The schedules to be shuffled are in the logs of that arm.
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


def _read_jobs(study: Study, data: DataSource) -> list[Job]:
    """The jobs of the dev or the test set.

    Raises:
        ValueError: a file is missing or does not fit, or a reference cannot be scored.
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
    jobs, grid = _read_jobs(study, study.dev), replace(plan.grid, counting=study.counting)
    inputs = calibration_inputs(model, jobs, plan.policies, grid)
    with locked(file.parent):
        check_note(file.with_name(_CALIBRATION_NOTE), inputs, continues=file.exists())
        if not file.exists():
            if model.folder is not None:
                ensure_head(model, plan.policies, jobs, model.folder, num_lanes=num_lanes)
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
    """Evaluates the schedules of the arm that this one shuffles, policy by policy."""
    other = str(study.arms[name].shuffle)
    same = Conditions(counting=study.counting)
    for text in requests(study, study.arms[name]):
        file = place.results(other) / folder_name(text) / LOG_FILE
        if not file.exists():  # that arm has said why
            warnings.warn(f"{name}: left out: {other} has no results of {text}", stacklevel=2)
            continue
        log = read_log(file)
        policy: dict[str, Policy] = {text: parse_policy(log[0].policy, whole_source=True)}
        shuffled = list(shuffled_jobs(log, jobs))
        evaluate(model, shuffled, policy, place.results(name), num_lanes=num_lanes, conditions=same)


def _named(arm: str, progress: Progress | None, keep_what: bool = True) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(f"{arm}: {what}" if keep_what else arm, done, total)
