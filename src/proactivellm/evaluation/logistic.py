"""Logistic regression in float64, its L2 weight chosen on groups that are held back.

Legend: N = examples, F = inputs.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_L2 = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
_HELD = 4  # one group in so many is held back
_STEPS = 100


class Fit(NamedTuple):
    """Weights for inputs as they are, not standardised, and how well they rank."""

    weight_F: Tensor
    bias: float
    l2: float
    auc: float  # on the groups held back, of weights fitted to the others


def fit(inputs_NF: Tensor, wanted_N: Tensor, group_N: Tensor) -> Fit:
    """Fit to all examples, with the L2 weight that ranks those of the groups held back best.

    ValueError where examples are all of one kind. Nothing is random.
    """
    held_N = group_N % _HELD == 0
    for part in (held_N, ~held_N):
        if len(set(wanted_N[part].tolist())) < 2:
            raise ValueError("the sources show too few decisions of both kinds: give more of them")
    mean_F, std_F = inputs_NF.mean(0), inputs_NF.std(0).clamp(min=1e-6)
    scaled_NF = (inputs_NF - mean_F) / std_F
    wanted_N = wanted_N.double()
    best_l2, best_auc = 0.0, -1.0
    for l2 in _L2:
        weight_F, _ = _minimise(scaled_NF[~held_N], wanted_N[~held_N], l2)
        auc = area_under_curve(scaled_NF[held_N] @ weight_F, wanted_N[held_N] > 0)
        if auc > best_auc:
            best_l2, best_auc = l2, auc
    weight_F, bias = _minimise(scaled_NF, wanted_N, best_l2)
    weight_F = weight_F / std_F
    return Fit(weight_F, float(bias - (weight_F * mean_F).sum()), best_l2, best_auc)


def _minimise(inputs_NF: Tensor, wanted_N: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Weights and bias at the least mean cross-entropy + `l2` / 2 of the squared weights."""
    weights = inputs_NF.new_zeros(inputs_NF.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logit_N = inputs_NF @ weights[:-1] + weights[-1]
        value = F.binary_cross_entropy_with_logits(logit_N, wanted_N)
        value = value + l2 / 2 * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weights.detach()[:-1], weights.detach()[-1]


def area_under_curve(score_N: Tensor, wanted_N: Tensor) -> float:
    """Area under the ROC curve: how often a wanted example scores above another; ties count half.

    0.5 if there is only one kind.
    """
    ordered = score_N[~wanted_N].sort().values
    if not len(ordered) or not wanted_N.any():
        return 0.5
    below = torch.searchsorted(ordered, score_N[wanted_N], right=False)
    up_to = torch.searchsorted(ordered, score_N[wanted_N], right=True)
    return float((below + up_to).double().mean() / 2 / len(ordered))
