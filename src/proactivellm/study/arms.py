"""What a study file (TOML) says: data, what all arms share, and how each arm differs."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from proactivellm.evaluation.calibrate import Grid
from proactivellm.evaluation.provenance import Conditions
from proactivellm.files.toml import Strict
from proactivellm.files.values import Count, Natural
from proactivellm.metrics.counting import Counting, resolve
from proactivellm.metrics.measures import QUALITIES_OF
from proactivellm.metrics.units import AUTO
from proactivellm.output.log import Task
from proactivellm.tasks.data import DataSource

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
    # Arm whose model the training begins with, in place of the recipe's backbone. That arm is
    # trained once, whatever seeds the study has.
    origin: str | None = Field(default=None, alias="from")
    like: str | None = None  # arm whose model is used; nothing is trained
    calibration: CalibrationPlan | None = None
    policies: list[str] | None = None
    depth: Count | None = None  # as `evaluate --depth`; the model decides if None
    # The schedules that this other arm's policies (or those of them named here) chose are
    # replayed, each source's reads in random order.
    shuffle: str | None = None

    @model_validator(mode="after")
    def _trains_or_borrows(self) -> Self:
        if (self.like or self.shuffle) and (self.recipe or self.change or self.origin):
            raise ValueError("an arm with `like` or `shuffle` trains nothing: leave the recipe out")
        if self.origin and "backbone" in self.change:
            raise ValueError("`from` gives the backbone: change nothing there")
        if self.shuffle and (self.like or self.calibration):
            raise ValueError("`shuffle` borrows all: leave `like` and `calibration` out")
        return self


class DataSet(Strict):
    """What policies are calibrated and evaluated on."""

    dev: DataSource  # thresholds come from here
    test: DataSource  # scores come from here


class Run(NamedTuple):
    """An arm under one seed; None = that of its recipe."""

    arm: str
    seed: int | None

    @property
    def name(self) -> str:
        """Its folder, below that of the study."""
        return self.arm if self.seed is None else f"{self.arm}/seed-{self.seed}"


class Study(Strict):
    """A whole study; recipe, calibration and policies are of the arms that name none."""

    title: str
    recipe: str | None = None
    task: Task = "translation"
    dev: DataSource | None = None  # with `test`, the only set
    test: DataSource | None = None
    sets: dict[str, DataSet] = {}  # in place of these two, by name; each has a report of its own
    # Sources that the head of `learned` is trained on, whatever the set; dev of the first set if
    # there are none. It should have met what is asked of it: join sentences here if a set does.
    head: list[DataSource] = []
    # Every arm is trained once with each and evaluated; none = once, with the seed of its recipe.
    seeds: list[Natural] = []
    calibration: CalibrationPlan = CalibrationPlan()
    policies: list[str]
    at: list[Level] = [2.0, 2.5, 3.0, 4.0, 5.0]  # latencies at which curves are compared
    latency: str = "LAAL"
    bleu_tokenize: str = AUTO  # as `score --bleu-tokenize`
    latency_unit: str = AUTO  # as `score --latency-unit`
    decode_rate: Level | None = None  # as `evaluate --decode-rate`
    curves: list[str] = []  # families of policies whose curves are compared
    # Arm and family that the others are compared with, such as "multi-k/wait-k"; a mere arm
    # compares each family with the same one there. Several: one table for each.
    against: str | list[str]
    # Family, such as "oracle": the share of the way there, on the model of the arm, is told.
    ceiling: str | None = None
    arms: dict[str, Arm]

    def conditions(self, arm: Arm) -> Conditions:
        """Under which an arm is evaluated: all alike, but for the depth of reasoning."""
        step_s = None if self.decode_rate is None else 1 / self.decode_rate
        return Conditions(counting=self.counting, step_s=step_s, depth=arm.depth)

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if bool(self.sets) == bool(self.dev or self.test) or bool(self.dev) != bool(self.test):
            raise ValueError("give either both [dev] and [test], or [sets]")
        for name in self.sets:
            if name in ("model", "results"):
                raise ValueError(f"sets: {name!r} is the name of another folder")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one of them is given twice")
        return self

    @model_validator(mode="after")
    def _names_what_exists(self) -> Self:
        for kind, names in (("arms", self.arms), ("sets", self.sets)):
            for name in names:
                if not name.strip(".") or not {"/", "\\", "\0"}.isdisjoint(name):
                    raise ValueError(f"{kind}: {name!r} cannot be the name of a folder")
        for name, arm in self.arms.items():
            other = arm.like or arm.shuffle
            for each in filter(None, (other, arm.origin)):
                if each not in self.arms or each == name:
                    arms = ", ".join(self.arms)
                    raise ValueError(f"arms.{name}: {each!r} is no other arm: {arms}")
            if other and (self.arms[other].shuffle or (arm.like and self.arms[other].like)):
                raise ValueError(f"arms.{name}: {other!r} has no model of its own")
            if not (other or arm.recipe or self.recipe):
                raise ValueError(f"arms.{name} has no recipe, and the study has none")
            self._check_origins(name)
        for against in self.references:
            if against.partition("/")[0] not in self.arms:
                arms = ", ".join(self.arms)
                raise ValueError(f"against: {against!r} begins with no arm: {arms}")
        resolve([], self.counting)  # refuses what cannot be counted before anything is trained
        return self

    def _check_origins(self, name: str) -> None:
        seen, origin = {name}, self.arms[name].origin
        while origin:
            arm = self.arms.get(origin)
            if origin in seen or arm is None or arm.like or arm.shuffle:
                raise ValueError(f"arms.{name}: `from` does not lead to an arm that begins anew")
            seen.add(origin)
            origin = arm.origin

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

    @property
    def references(self) -> list[str]:
        """All that is named in `against`."""
        return [self.against] if isinstance(self.against, str) else self.against

    @property
    def data(self) -> dict[str, DataSet]:
        """The sets by name; the only one is called ""."""
        if self.dev is None or self.test is None:
            return self.sets
        return {"": DataSet(dev=self.dev, test=self.test)}

    @property
    def each_seed(self) -> Sequence[int | None]:
        """All seeds; None alone where the study has none."""
        return self.seeds or (None,)

    def run(self, name: str, seed: int | None) -> Run:
        """The run of an arm that belongs to a seed: an arm that others begin with has only one."""
        alone = self.owner(name) in {arm.origin for arm in self.arms.values()}
        return Run(name, None if alone else seed)

    def runs(self, name: str) -> list[Run]:
        """All runs of an arm."""
        return list(dict.fromkeys(self.run(name, seed) for seed in self.each_seed))

    def trained(self, run: Run) -> Run:
        """The run whose model a run uses: itself, or one of another arm."""
        return run._replace(arm=self.owner(run.arm))
