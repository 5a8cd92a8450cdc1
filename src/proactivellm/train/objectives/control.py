"""The control token <READ>: a partial view learns where it should have read on first.

The token is never written, and the other objectives see the distribution without it. This one adds
what is left of the cross-entropy of a vocabulary that has the token, by the chain rule: -log
p(<READ>) at a row that should READ, and -log(1 - p(<READ>)) at one that should WRITE, where the
token that is written is the business of L_MSLM. Legend: R = target rows, V = vocabulary.
"""

from typing import Any, Literal, Self

import torch
import torch.nn.functional as nn_f
from pydantic import model_validator
from torch import Tensor

from proactivellm.files.values import Weight
from proactivellm.train.actions import NO_ACTION, READ
from proactivellm.train.objectives.objective import RowObjective, ViewRows
from proactivellm.train.schedules import ViewSettings

# The full view accepts a token that is so probable beside its favourite, as heads of `learned` are
# trained.
ACCEPTABLE = 0.3


def control_loss(odds_R: Tensor, reads_R: Tensor, asked_R: Tensor) -> Tensor:
    """Cross-entropy of READ against WRITE, summed over the rows that are asked, nats.

    Args:
        odds_R: log-odds of the control token.
        reads_R: bool, whether READ is right.
        asked_R: bool.
    """
    odds_N, reads_N = odds_R[asked_R], reads_R[asked_R].to(odds_R.dtype)
    return nn_f.binary_cross_entropy_with_logits(odds_N, reads_N, reduction="sum")


def refused_by_full(log_p_RV: Tensor, full_RV: Tensor) -> Tensor:
    """Whether the token that a partial view favours is not acceptable to the full one, bool [R]."""
    chosen_R = full_RV.gather(-1, log_p_RV.argmax(-1, keepdim=True))[:, 0]
    return chosen_R.exp() < ACCEPTABLE * full_RV.amax(-1).exp()


class ControlSettings(ViewSettings):
    """The keys of the control token."""

    control_weight: Weight = 0.0
    # READ and WRITE are right where the full view says so of the favourite of a partial one, or
    # where the traces of a log (`log` in [data.train]) had them.
    control_trace: Literal["oracle", "data"] = "oracle"

    @model_validator(mode="after")
    def _control_has_views(self) -> Self:
        if self.control_weight and not self.num_partial:
            raise ValueError(
                "num_partial = 0 leaves no view that could READ: set control_weight to 0, or "
                "num_partial to 1"
            )
        return self


class Control(RowObjective):
    """The mean over partial views of the cross-entropy of READ against WRITE, nats per token."""

    name = "control"
    Settings = ControlSettings
    weight_keys = ("control_weight",)
    part_names = ("control",)

    def __init__(self, settings: ControlSettings, model: Any = None, front_end: Any = None) -> None:
        super().__init__(settings, model, front_end)
        self.needs_full = settings.control_trace == "oracle"

    def of_partial(self, rows: ViewRows) -> Tensor:
        assert rows.read_R is not None and rows.action_R is not None
        reads_R = rows.action_R == READ
        if self.settings.control_trace == "oracle":
            assert rows.full_RV is not None
            with torch.no_grad():
                reads_R = refused_by_full(rows.log_p_RV, rows.full_RV)
        return control_loss(rows.read_R, reads_R, rows.action_R != NO_ACTION)[None]
