"""All objectives there are, in the order of their parts in the log; a new one is added here."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from proactivellm.files.toml import Strict
from proactivellm.train.objectives.control import Control
from proactivellm.train.objectives.ctc import Ctc
from proactivellm.train.objectives.distillation import Distillation
from proactivellm.train.objectives.likelihood import Likelihood
from proactivellm.train.objectives.objective import Objective
from proactivellm.train.objectives.router import Router
from proactivellm.train.objectives.taught import Taught

OBJECTIVES: list[type[Objective]] = [Likelihood, Distillation, Control, Router, Ctc, Taught]


def keys_of(section: str) -> list[type[Strict]]:
    """The settings of objectives that stand in one table of a recipe: bases of its class."""
    return [kind.Settings for kind in OBJECTIVES if kind.section == section]


def teaches(tables: Mapping[str, Any]) -> bool:
    """Whether a model learns something by the objectives of a recipe, whose `tables` go by name."""
    asked = [(kind, tables.get(kind.section)) for kind in OBJECTIVES]
    return any(kind.teaches and table and kind.wanted(table) for kind, table in asked)


def make_objectives(
    tables: Mapping[str, Any], model: PreTrainedModel, front_end: Any = None
) -> list[Objective]:
    """The objectives of a run, those of weight 0 left out; ValueError if the model does not fit
    one.

    `tables` are those of the recipe, by section; None = not there.
    """
    asked = [(kind, tables.get(kind.section)) for kind in OBJECTIVES]
    made = [kind.make(table, model, front_end) for kind, table in asked if table is not None]
    return [objective for objective in made if objective is not None]
