"""The objective of ProactiveLLM: L_batch + L_MSLM + lambda KL, as functions of logits.

Where the KL is cut to the teacher's most probable tokens, the others are one more outcome together:
without it the sums are no divergence, and least for a student that differs from the teacher.
Legend: R = target rows, K = tokens of the KL, V = vocabulary, D = model width. Row r of every view
predicts the same token, so that teacher (full source) and student (partial source) rows correspond
one to one.
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
        kl_direction: "forward" or "reverse"; see `top_k_kl`.
        label_smoothing: mass spread over the vocabulary in both cross-entropies.
        logits_mib: memory that logits and what is made of them may take at once; see
            `rows_within`.
        router_weight: of the loss of a mixture of experts; see `router.router_weight`.
    """

    batch_weight: float = 1.0
    mslm_weight: float = 1.0
    kl_weight: float = 0.1
    kl_top_k: int = 100
    kl_direction: str = "forward"
    label_smoothing: float = 0.0
    logits_mib: int = 1024
    router_weight: float | None = None

    @property
    def weighs_target(self) -> bool:
        """Whether any loss looks at what the LM predicts."""
        return bool(self.batch_weight or self.mslm_weight or self.kl_weight)

    @property
    def needs_full(self) -> bool:
        """Whether any loss looks at the full view."""
        return bool(self.batch_weight or self.kl_weight)


def cross_entropy(log_p_RV: Tensor, label_R: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy from log-probabilities, summed over rows.

    Args:
        log_p_RV: log-probabilities.
        label_R: the token each row predicts.
        smoothing: mass spread evenly over the vocabulary.

    Returns:
        A scalar, nats.
    """
    expected_R = log_p_RV.gather(-1, label_R[:, None])[:, 0]
    if smoothing:
        expected_R = (1.0 - smoothing) * expected_R + smoothing * log_p_RV.mean(-1)
    return -expected_R.sum()


def top_k_kl(teacher_RV: Tensor, student_RV: Tensor, top_k: int, direction: str) -> Tensor:
    """The divergence of partial view and full view, summed over rows.

    Over the teacher's most probable tokens, and all others as one outcome: never above the
    divergence over the whole vocabulary, and 0 where the student is the teacher.

    Args:
        teacher_RV: log-probabilities with the full source visible; no gradient flows into them.
        student_RV: log-probabilities under a partial schedule.
        top_k: number of the teacher's most probable tokens that enter.
        direction: "forward" is `KL(P_full || P_partial)` (ProactiveLLM), which wants the student to
            cover the teacher; "reverse" is `KL(P_partial || P_full)`.

    Returns:
        A scalar, nats.
    """
    log_p_RK, index_RK = teacher_RV.detach().topk(min(top_k, teacher_RV.shape[-1]), dim=-1)
    log_q_RK = student_RV.gather(-1, index_RK)
    if index_RK.shape[-1] < teacher_RV.shape[-1]:
        log_p_RK, log_q_RK = with_rest(log_p_RK), with_rest(log_q_RK)
    if direction == "reverse":
        return (log_q_RK.exp() * (log_q_RK - log_p_RK)).sum()
    return (log_p_RK.exp() * (log_p_RK - log_q_RK)).sum()


def with_rest(log_p_RK: Tensor) -> Tensor:
    """Adds the probability that is left, as one more outcome.

    Args:
        log_p_RK: log-probabilities of some outcomes.

    Returns:
        [R, K + 1].
    """
    # From 1e-6 on, what is left is rounding: there it has no gradient.
    rest_R = torch.log1p(-log_p_RK.exp().sum(-1).clamp(max=1.0 - 1e-6))
    return torch.cat([log_p_RK, rest_R[:, None]], dim=-1)


def rows_within(logits_mib: int, vocabulary: int, num_views: int) -> int:
    """Target rows whose logits fit a budget of memory.

    For each row of a chunk, the log-probabilities of every view are alive in the backward pass, and
    at its peak three tensors as wide: gradients of two parts of the loss, and of the logits.

    Args:
        logits_mib: the budget.
        vocabulary: V.
        num_views: W.

    Returns:
        R, at least 1.
    """
    return max(1, (logits_mib << 20) // (4 * vocabulary * (num_views + 3)))


def chunk_losses(
    project: Callable[[Tensor], Tensor], hidden_WRD: Tensor, label_R: Tensor, objective: Objective
) -> Tensor:
    """The three sums over some rows of all views.

    Args:
        project: hidden states -> logits.
        hidden_WRD: hidden states of W views: the full one first where the objective needs it, then
            the partial ones.
        label_R: the token each row predicts.
        objective: weights; only its smoothing, top-k and direction are used here.

    Returns:
        [3]: sums of cross-entropy (full view), cross-entropy and KL (mean over partial views).
    """
    smoothing = objective.label_smoothing
    full = partial = kl = torch.zeros((), device=hidden_WRD.device)
    full_RV = None
    if objective.needs_full:
        full_RV = project(hidden_WRD[0]).float().log_softmax(-1)
        full = cross_entropy(full_RV, label_R, smoothing)
        hidden_WRD = hidden_WRD[1:]
    for hidden_RD in hidden_WRD:
        log_q_RV = project(hidden_RD).float().log_softmax(-1)
        partial = partial + cross_entropy(log_q_RV, label_R, smoothing) / len(hidden_WRD)
        if full_RV is not None and objective.kl_weight:
            divergence = top_k_kl(full_RV, log_q_RV, objective.kl_top_k, objective.kl_direction)
            kl = kl + divergence / len(hidden_WRD)
    return torch.stack([full, partial, kl])


def view_losses(
    project: Callable[[Tensor], Tensor],
    hidden_WRD: Tensor,
    label_R: Tensor,
    objective: Objective,
    chunk: int,
    num_rows: Tensor | None = None,
) -> Tensor:
    """Mean losses per target token, computed in row chunks that are recomputed in backward.

    Args:
        project: hidden states -> logits.
        hidden_WRD: hidden states of W views, the full one first.
        label_R: the token each row predicts.
        objective: smoothing, top-k.
        chunk: rows whose logits exist at once.
        num_rows: what the sums are divided by, where these rows are a part of an update; None = by
            how many they are.

    Returns:
        [3]: L_batch, L_MSLM, KL, each a mean over rows, nats per token.
    """
    sums = []
    for start in range(0, label_R.shape[0], chunk):
        rows = slice(start, start + chunk)
        arguments = (project, hidden_WRD[:, rows], label_R[rows], objective)
        if label_R.shape[0] > chunk and torch.is_grad_enabled():
            sums.append(checkpoint(chunk_losses, *arguments, use_reentrant=False))
        else:
            sums.append(chunk_losses(*arguments))
    return torch.stack(sums).sum(0) / (max(label_R.shape[0], 1) if num_rows is None else num_rows)


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
