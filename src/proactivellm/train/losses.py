"""The objective of ProactiveLLM: L_batch + L_MSLM + lambda KL, as functions of logits.

Legend: R = target rows, V = vocabulary, D = model width. Row r of every view predicts the same
token, so that teacher (full source) and student (partial source) rows correspond one to one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Weights of the objective.

    Attributes:
        batch_weight: weight of L_batch, cross-entropy with the full source visible.
        mslm_weight: weight of L_MSLM, cross-entropy under sampled schedules.
        kl_weight: lambda, weight of the synchronised privileged self-distillation.
        kl_top_k: teacher tokens that enter the KL.
        label_smoothing: mass spread over the vocabulary in both cross-entropies.
        rows_per_chunk: target rows whose logits exist at once.
    """

    batch_weight: float = 1.0
    mslm_weight: float = 1.0
    kl_weight: float = 0.1
    kl_top_k: int = 100
    label_smoothing: float = 0.0
    rows_per_chunk: int = 4096


def cross_entropy(
    logits_RV: Tensor, normalizer_R: Tensor, label_R: Tensor, smoothing: float
) -> Tensor:
    """Cross-entropy from logits and their log-sum-exp, summed over rows.

    Args:
        logits_RV: logits.
        normalizer_R: their log-sum-exp, computed once for every loss that needs it.
        label_R: the token each row predicts.
        smoothing: mass spread evenly over the vocabulary.

    Returns:
        A scalar, nats.
    """
    expected_R = logits_RV.gather(-1, label_R[:, None])[:, 0].float()
    if smoothing:
        expected_R = (1.0 - smoothing) * expected_R + smoothing * logits_RV.float().mean(-1)
    return (normalizer_R - expected_R).sum()


def top_k_kl(
    teacher_RV: Tensor, student_RV: Tensor, student_normalizer_R: Tensor, top_k: int
) -> Tensor:
    """`KL(P_full || P_partial)` over the teacher's most probable tokens, summed over rows.

    Args:
        teacher_RV: logits with the full source visible; no gradient flows into them.
        student_RV: logits under a partial schedule.
        student_normalizer_R: log-sum-exp of the student's logits.
        top_k: number of teacher tokens.

    Returns:
        A scalar, nats.
    """
    with torch.no_grad():
        values_RK, index_RK = teacher_RV.topk(min(top_k, teacher_RV.shape[-1]), dim=-1)
        log_p_RK = values_RK.float() - teacher_RV.float().logsumexp(-1, keepdim=True)
    log_q_RK = student_RV.gather(-1, index_RK).float() - student_normalizer_R[:, None]
    return (log_p_RK.exp() * (log_p_RK - log_q_RK)).sum()


def chunk_losses(
    project: Callable[[Tensor], Tensor], hidden_WRD: Tensor, label_R: Tensor, objective: Objective
) -> Tensor:
    """The three sums over some rows of all views.

    Args:
        project: hidden states -> logits.
        hidden_WRD: hidden states of W views: the full one first, then the partial ones.
        label_R: the token each row predicts.
        objective: weights; only its smoothing and top-k are used here.

    Returns:
        [3]: sums of cross-entropy (full view), cross-entropy and KL (mean over partial views).
    """
    smoothing = objective.label_smoothing
    full_RV = project(hidden_WRD[0])
    full = cross_entropy(full_RV, full_RV.float().logsumexp(-1), label_R, smoothing)
    num_partial = hidden_WRD.shape[0] - 1
    partial = kl = torch.zeros_like(full)
    for hidden_RD in hidden_WRD[1:]:
        logits_RV = project(hidden_RD)
        normalizer_R = logits_RV.float().logsumexp(-1)
        ce = cross_entropy(logits_RV, normalizer_R, label_R, smoothing)
        partial = partial + ce / num_partial
        if objective.kl_weight:
            kl_rows = top_k_kl(full_RV, logits_RV, normalizer_R, objective.kl_top_k)
            kl = kl + kl_rows / num_partial
    return torch.stack([full, partial, kl])


def view_losses(
    project: Callable[[Tensor], Tensor], hidden_WRD: Tensor, label_R: Tensor, objective: Objective
) -> Tensor:
    """Mean losses per target token, computed in row chunks that are recomputed in backward.

    Args:
        project: hidden states -> logits.
        hidden_WRD: hidden states of W views, the full one first.
        label_R: the token each row predicts.
        objective: smoothing, top-k, chunk size.

    Returns:
        [3]: L_batch, L_MSLM, KL, each a mean over rows, nats per token.
    """
    size = objective.rows_per_chunk
    sums = []
    for start in range(0, label_R.shape[0], size):
        rows = slice(start, start + size)
        arguments = (project, hidden_WRD[:, rows], label_R[rows], objective)
        if label_R.shape[0] > size and torch.is_grad_enabled():
            sums.append(checkpoint(chunk_losses, *arguments, use_reentrant=False))
        else:
            sums.append(chunk_losses(*arguments))
    return torch.stack(sums).sum(0) / max(label_R.shape[0], 1)


def combine(losses: Tensor, objective: Objective) -> Tensor:
    """`L_batch + L_MSLM + lambda KL` (ProactiveLLM, section 3).

    Args:
        losses: [3] from `view_losses`.
        objective: the weights.

    Returns:
        A scalar.
    """
    weights = [objective.batch_weight, objective.mslm_weight, objective.kl_weight]
    return (losses * torch.tensor(weights, device=losses.device)).sum()
