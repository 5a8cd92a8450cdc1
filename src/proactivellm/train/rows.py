"""Distributions of target rows, a few rows at a time: logits are the largest tensors of a step.

Legend: R = target rows, V = vocabulary, D = model width, W = views, P = parts of a loss. Row r of
every view predicts the same token, and learns it, or what its view has in place of it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from proactivellm.train.objectives.objective import RowObjective, ViewRows


class Control(NamedTuple):
    """What is known of the control token."""

    read_id: int
    action_WR: Tensor | None = None  # of `train.actions`; None: nobody learns it


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
    control: Control | None = None,
) -> Tensor:
    """The parts of objectives, summed over rows in chunks that are recomputed in the backward pass.

    Args:
        objectives: all are shown the same distributions.
        project: hidden states -> logits.
        views: hidden states [W, R, D] and labels [W, R].
        has_full: whether the first view is the full one.
        chunk: rows whose logits exist at once.
        control: the token that stands apart; None = the model has none.

    Returns:
        [P], one objective after the other.
    """
    hidden_WRD, label_WR = views
    read_id, action_WR = control or (None, None)
    one = partial(_chunk_sums, objectives, project, has_full, read_id)
    hidden, label = hidden_WRD.split(chunk, dim=1), label_WR.split(chunk, dim=1)
    action = [None] * len(label) if action_WR is None else action_WR.split(chunk, dim=1)
    sums = over_chunks(one, list(zip(hidden, label, action, strict=True)))
    return torch.stack(sums).sum(0)


def over_chunks(one: Callable[..., Tensor], chunks: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    """What a function makes of the rows of each chunk; of several, each is computed again in the
    backward pass.
    """
    if len(chunks) > 1 and torch.is_grad_enabled():
        return [checkpoint(one, *chunk, use_reentrant=False) for chunk in chunks]
    return [one(*chunk) for chunk in chunks]


def _chunk_sums(
    objectives: Sequence[RowObjective],
    project: Callable[[Tensor], Tensor],
    has_full: bool,
    read_id: int | None,
    hidden_WRD: Tensor,
    label_WR: Tensor,
    action_WR: Tensor | None,
) -> Tensor:
    # View by view: the backward pass then holds the gradient of one view's logits at a time.
    sums_P, full_RV = torch.zeros((), device=hidden_WRD.device), None
    label_WR = without_label(label_WR, read_id)
    if has_full:
        full_RV, _ = log_probabilities(project(hidden_WRD[0]), read_id)
        full = ViewRows(full_RV, label_WR[0], full_RV)
        sums_P = torch.cat([objective.of_full(full) for objective in objectives])
    for view in range(int(has_full), len(hidden_WRD)):
        log_p_RV, read_R = log_probabilities(project(hidden_WRD[view]), read_id)
        action_R = None if action_WR is None else action_WR[view]
        rows = ViewRows(log_p_RV, label_WR[view], full_RV, read_R, action_R)
        parts_P = torch.cat([objective.of_partial(rows) for objective in objectives])
        sums_P = sums_P + parts_P / (len(hidden_WRD) - has_full)
    return sums_P


def log_probabilities(logits_RV: Tensor, read_id: int | None) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of what may be written, and the log-odds of the control token, [R].

    Its column is cut out, and with it what it would do to smoothing and divergences.
    """
    logits_RV = logits_RV.float()
    if read_id is None:
        return logits_RV.log_softmax(-1), None
    written_RV = torch.cat([logits_RV[:, :read_id], logits_RV[:, read_id + 1 :]], dim=-1)
    log_p_RV = written_RV.log_softmax(-1)
    # The logarithm of the sum, without a function that would keep another tensor as wide.
    total_R = written_RV[:, 0] - log_p_RV[:, 0]
    return log_p_RV, logits_RV[:, read_id] - total_R


def without_label(label: Tensor, read_id: int | None) -> Tensor:
    """Labels as columns of `log_probabilities`."""
    return label if read_id is None else label - (label > read_id).long()


def view_scores(
    project: Callable[[Tensor], Tensor],
    hidden_WRD: Tensor,
    label_WR: Tensor,
    chunk: int,
    read_id: int | None = None,
) -> Tensor:
    """Sums of [negative log-likelihood, hits, rows] per view: [W, 3]; `chunk` rows at a time."""
    label_WR = without_label(label_WR, read_id)
    scores = hidden_WRD.new_zeros(len(hidden_WRD), 3, dtype=torch.float32)
    for view, hidden_RD in enumerate(hidden_WRD):
        labels = label_WR[view].split(chunk)
        for rows, label in zip(hidden_RD.split(chunk), labels, strict=True):
            log_p_RV, _ = log_probabilities(project(rows), read_id)
            scores[view, 0] -= log_p_RV.gather(-1, label[:, None]).sum()
            scores[view, 1] += (log_p_RV.argmax(-1) == label).sum()
            scores[view, 2] += len(label)
    return scores
