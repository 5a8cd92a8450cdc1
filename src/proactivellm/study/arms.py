"""What a study file (TOML) says: data, what all arms share, and how each arm differs."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from proactivellm.evaluation.calibrate import Grid
from proactivellm.files.toml import Strict, overlaid, read_toml, validated
from proactivellm.metrics.counting import Counting, resolve
from proactivellm.metrics.measures import QUALITIES_OF
from proactivellm.metrics.units import AUTO
from proactivellm.output.log import Task
from proactivellm.tasks.data import DataSource
from proactivellm.train.recipe import Recipe

Bound = int | Literal["none"]
Level = Annotated[float, Field(gt=0.0)]


class CalibrationPlan(Strict):
    """What is measured on the dev data before an arm is evaluated, see `evaluation.Grid`."""

    policies: list[str] = []  # as `calibrate --policy`; none = no calibration
    quantiles: list[Annotated[float, Field(gt=0.0, lt=1.0)]] = list(Grid().quantiles)
    min_lags: list[int] = list(Grid().min_lags)
    max_lags: list[Bound] = ["none" if lag is None else lag for lag in Grid().max_lags]

    @property
    def grid(self) -> Grid:
        """The same as `calibrate` takes it."""
        return Grid(
            quantiles=tuple(self.quantiles),
            min_lags=tuple(self.min_lags),
            max_lags=tuple(None if lag == "none" else lag for lag in self.max_lags),
        )


class Arm(Strict):
    """One way to train, or to decide with a model that another arm trained.

    Recipe, calibration and policies are those of the study where the arm names none.
    """

    about: str = ""  # what differs, in words
    recipe: str | None = None
    change: dict[str, Any] = {}  # tables laid over the recipe
    like: str | None = None  # arm whose model is used; nothing is trained
    calibration: CalibrationPlan | None = None
    policies: list[str] | None = None
    # The schedules that this other arm's policies (or those of them named here) chose are
    # replayed, each source's reads in random order.
    shuffle: str | None = None

    @model_validator(mode="after")
    def _trains_or_borrows(self) -> Self:
        if (self.like or self.shuffle) and (self.recipe or self.change):
            raise ValueError("an arm with `like` or `shuffle` trains nothing: leave the recipe out")
        if self.shuffle and (self.like or self.calibration):
            raise ValueError("`shuffle` borrows all: leave `like` and `calibration` out")
        return self


class Study(Strict):
    """A whole study; recipe, calibration and policies are of the arms that name none."""

    title: str
    recipe: str | None = None
    task: Task = "translation"
    dev: DataSource  # thresholds come from here
    test: DataSource  # scores come from here
    calibration: CalibrationPlan = CalibrationPlan()
    policies: list[str]
    at: list[Level] = [2.0, 2.5, 3.0, 4.0, 5.0]  # latencies at which curves are compared
    latency: str = "LAAL"
    bleu_tokenize: str = AUTO  # as `score --bleu-tokenize`
    latency_unit: str = AUTO  # as `score --latency-unit`
    curves: list[str] = []  # families of policies whose curves are compared
    # Arm and family that the others are compared with, such as "multi-k/wait-k"; a mere arm
    # compares each family with the same one there.
    against: str
    arms: dict[str, Arm]

    @model_validator(mode="after")
    def _names_what_exists(self) -> Self:
        for name, arm in self.arms.items():
            if not name.strip(".") or not {"/", "\\", "\0"}.isdisjoint(name):
                raise ValueError(f"arms: {name!r} cannot be the name of a folder")
            other = arm.like or arm.shuffle
            if other and (other not in self.arms or other == name):
                raise ValueError(f"arms.{name}: {other!r} is no other arm: {', '.join(self.arms)}")
            if other and (self.arms[other].shuffle or (arm.like and self.arms[other].like)):
                raise ValueError(f"arms.{name}: {other!r} has no model of its own")
            if not (other or arm.recipe or self.recipe):
                raise ValueError(f"arms.{name} has no recipe, and the study has none")
        if self.against.partition("/")[0] not in self.arms:
            raise ValueError(
                f"against: {self.against!r} begins with no arm: {', '.join(self.arms)}"
            )
        resolve([], self.counting)  # refuses what cannot be counted before anything is trained
        return self

    @property
    def counting(self) -> Counting:
        """What all scores count."""
        return Counting(tokenize=self.bleu_tokenize, unit=self.latency_unit)

    @property
    def quality(self) -> str:
        """The quality that the tables show: the main one of the task."""
        return QUALITIES_OF[self.task][0]

    def owner(self, name: str) -> str:
        """The arm that trains the model an arm uses: itself, or another."""
        arm = self.arms[name]
        other = arm.like or arm.shuffle
        return self.owner(other) if other else name


def arm_recipe(study: Study, name: str, folder: Path) -> Recipe:
    """The training recipe of an arm: the study's, or its own, with its changes.

    Recipes are found from `folder`, that of the study file.

    Raises:
        ValueError: the recipe with the changes does not fit.
    """
    arm = study.arms[name]
    file = folder / str(arm.recipe or study.recipe)
    return validated(overlaid(read_toml(file), arm.change), Recipe, f"{file} (arm {name})")
