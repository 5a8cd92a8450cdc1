"""Learners of the objectives that some keys of a recipe ask for."""

from transformers import PreTrainedModel

from proactivellm.model.layout import Layout, grouped
from proactivellm.train.learner import Learner
from proactivellm.train.objectives.table import make_objectives
from proactivellm.train.recipe import Objectives


def make_learner(model: PreTrainedModel, layout: Layout | None = None, **keys: object) -> Learner:
    """A model with its objectives; the keys are those of `[objective]`."""
    table = Objectives(**keys)
    objectives = make_objectives({"objective": table}, model)
    return Learner(model, layout or grouped(), objectives, logits_mib=table.logits_mib)
