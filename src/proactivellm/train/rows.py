"""Distributions of target rows, a few rows at a time: logits are the largest tensors of a step.

Legend: R = target rows, V = vocabulary, D = model width, W = views, P = parts of a loss. Row r of
every view predicts the same token.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from proactivellm.train.objectives.objective import RowObjective, ViewRows


def rows_within(logits_mib: int, vocabulary: int, num_views: int) -> int:
    """Target rows whose logits fit a budget of memory, at least 1.

    For each row of a chunk, the log-probabilities of every view are alive in the backward pass, and
    at its peak three tensors as wide: gradients of two parts of the loss, and of the logits.
    """
    return max(1, (logits_mib << 20) // (4 * vocabulary * (num_views + 3)))


def row_sums(
    objectives: Sequence[RowObjective],
    project: Callable[[Tensor], Tensor],
    views: tuple[Tensor, Tensor],
    has_full: bool,
    chunk: int,
) -> Tensor:
    """The parts of objectives, summed over rows in chunks that are recomputed in the backward pass.

    Args:
        objectives: all are shown the same distributions.
        project: hidden states -> logits.
        views: hidden states [W, R, D] and labels [R].
        has_full: whether the first view is the full one.
        chunk: rows whose logits exist at once.

    Returns:
        [P], one objective after the other.
    """
    one = partial(_chunk_sums, objectives, project, has_full)
    hidden_WRD, label_R = views
    sums = []
    for start in range(0, len(label_R), chunk):
        rows = slice(start, start + chunk)
        if len(label_R) > chunk and torch.is_grad_enabled():
            sums.append(checkpoint(one, hidden_WRD[:, rows], label_R[rows], use_reentrant=False))
        else:
            sums.append(one(hidden_WRD[:, rows], label_R[rows]))
    return torch.stack(sums).sum(0)


def _chunk_sums(
    objectives: Sequence[RowObjective],
    project: Callable[[Tensor], Tensor],
    has_full: bool,
    hidden_WRD: Tensor,
    label_R: Tensor,
) -> Tensor:
    # View by view: the backward pass then holds the gradient of one view's logits at a time.
    sums_P, full_RV = torch.zeros((), device=hidden_WRD.device), None
    if has_full:
        full_RV = project(hidden_WRD[0]).float().log_softmax(-1)
        full = ViewRows(full_RV, label_R, full_RV)
        sums_P = torch.cat([objective.of_full(full) for objective in objectives])
        hidden_WRD = hidden_WRD[1:]
    for hidden_RD in hidden_WRD:
        rows = ViewRows(project(hidden_RD).float().log_softmax(-1), label_R, full_RV)
        parts_P = torch.cat([objective.of_partial(rows) for objective in objectives])
        sums_P = sums_P + parts_P / len(hidden_WRD)
    return sums_P


def view_scores(
    project: Callable[[Tensor], Tensor], hidden_WRD: Tensor, label_R: Tensor, chunk: int
) -> Tensor:
    """Sums of [negative log-likelihood, hits, rows] per view: [W, 3]; `chunk` rows at a time."""
    scores = hidden_WRD.new_zeros(len(hidden_WRD), 3, dtype=torch.float32)
    for view, hidden_RD in enumerate(hidden_WRD):
        for rows, label in zip(hidden_RD.split(chunk), label_R.split(chunk), strict=True):
            log_p_RV = project(rows).float().log_softmax(-1)
            scores[view, 0] -= log_p_RV.gather(-1, label[:, None]).sum()
            scores[view, 1] += (log_p_RV.argmax(-1) == label).sum()
            scores[view, 2] += len(label)
    return scores
