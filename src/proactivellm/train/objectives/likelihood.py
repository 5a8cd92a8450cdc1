"""L_batch and L_MSLM: cross-entropy with the whole source visible, and under sampled schedules."""

from typing import NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor

from proactivellm.files.values import Share, Weight
from proactivellm.train.objectives.objective import RowObjective, ViewRows
from proactivellm.train.schedules import ViewSettings


def cross_entropy(
    log_p_RV: Tensor, label_R: Tensor, smoothing: float, skip: "Skip | None" = None
) -> Tensor:
    """Cross-entropy from log-probabilities, summed over the rows that have a label, nats.

    Args:
        smoothing: mass spread evenly over the vocabulary.
        skip: the token that counts less, or more, than others.
    """
    expected_R = log_p_RV.gather(-1, label_R.clamp(min=0)[:, None])[:, 0]
    if smoothing:
        expected_R = (1.0 - smoothing) * expected_R + smoothing * log_p_RV.mean(-1)
    if skip is not None:
        expected_R = torch.where(label_R == skip.token_id, skip.weight * expected_R, expected_R)
    return -(expected_R * (label_R >= 0)).sum()


class Skip(NamedTuple):
    """What closes a thought that is none, and what its rows count."""

    token_id: int
    weight: float


class LikelihoodSettings(ViewSettings):
    """The keys of L_batch and L_MSLM, and of the label smoothing in both."""

    batch_weight: Weight = 1.0
    mslm_weight: Weight = 1.0
    label_smoothing: Share = 0.0

    @model_validator(mode="after")
    def _mslm_has_views(self) -> Self:
        if self.mslm_weight and not self.num_partial:
            raise ValueError(
                "num_partial = 0 leaves no view for L_MSLM: set mslm_weight to 0, or num_partial "
                "to 1"
            )
        return self


class Likelihood(RowObjective):
    """Cross-entropy of the full view, and its mean over the partial views."""

    name = "likelihood"
    Settings = LikelihoodSettings
    weight_keys = ("batch_weight", "mslm_weight")
    full_keys = ("batch_weight",)
    part_names = ("loss_batch", "loss_mslm")
    teaches = True
    skip: Skip | None = None  # of a model that thinks; None: all tokens count alike

    def of_full(self, rows: ViewRows) -> Tensor:
        entropy = cross_entropy(
            rows.log_p_RV, rows.label_R, self.settings.label_smoothing, self.skip
        )
        return torch.stack([entropy, torch.zeros_like(entropy)])

    def of_partial(self, rows: ViewRows) -> Tensor:
        entropy = cross_entropy(
            rows.log_p_RV, rows.label_R, self.settings.label_smoothing, self.skip
        )
        return torch.stack([torch.zeros_like(entropy), entropy])
