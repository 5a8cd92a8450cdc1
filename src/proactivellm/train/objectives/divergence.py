"""Divergences of a student from a teacher at the same prefix, row by row, nats.

p is the teacher, q the student; what is passed are finite log-probabilities. A gradient flows into
whatever asks for one: a teacher is detached by the caller. Legend: R = rows, K = outcomes, V =
vocabulary.
"""

import math

import torch
from torch import Tensor


def mixed_kl(log_p_RK: Tensor, log_q_RK: Tensor, mix: float) -> Tensor:
    """`mix * KL(q || p) + (1 - mix) * KL(p || q)`, [R] (arXiv 2605.16826).

    0 is the forward KL, whose gradient is that of cross-entropy with soft labels; 1 the reverse KL,
    whose gradient is a policy gradient with the log-ratio as reward, summed over all outcomes.
    """
    difference_RK = log_p_RK - log_q_RK
    forward_R = (log_p_RK.exp() * difference_RK).sum(-1)
    reverse_R = -(log_q_RK.exp() * difference_RK).sum(-1)
    return mix * reverse_R + (1.0 - mix) * forward_R


def jensen_shannon(log_p_RK: Tensor, log_q_RK: Tensor, mix: float) -> Tensor:
    """Generalised Jensen-Shannon divergence, [R] (GKD, arXiv 2306.13649).

    `mix * KL(p || m) + (1 - mix) * KL(q || m)` with `m = mix * p + (1 - mix) * q`; bounded, and
    not the linear mix of the KLs. At 0 and 1 it would be 0: there it is the forward and the
    reverse KL, as in TRL.
    """
    if mix in (0.0, 1.0):
        return mixed_kl(log_p_RK, log_q_RK, mix)
    log_m_RK = torch.logaddexp(log_p_RK + math.log(mix), log_q_RK + math.log1p(-mix))
    teacher_R = (log_p_RK.exp() * (log_p_RK - log_m_RK)).sum(-1)
    student_R = (log_q_RK.exp() * (log_q_RK - log_m_RK)).sum(-1)
    return mix * teacher_R + (1.0 - mix) * student_R


def entropy(log_p_RK: Tensor) -> Tensor:
    """Entropy of each row, [R]."""
    return -(log_p_RK.exp() * log_p_RK).sum(-1)


def with_rest(log_p_RK: Tensor) -> Tensor:
    """Adds the probability that is left, as one more outcome: [R, K + 1]."""
    # From 1e-6 on, what is left is rounding: there it has no gradient.
    rest_R = torch.log1p(-log_p_RK.exp().sum(-1).clamp(max=1.0 - 1e-6))
    return torch.cat([log_p_RK, rest_R[:, None]], dim=-1)
