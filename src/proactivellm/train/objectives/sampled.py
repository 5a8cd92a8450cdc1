"""Rewards of the token that was written, in place of a divergence over the vocabulary.

p is the teacher's probability of the token, q the student's. Rewards are constants: the gradient of
`policy_loss` is `-r * grad log q`. Legend: R = tokens, G = responses.
"""

import torch
from torch import Tensor


def log_ratio(log_p_R: Tensor, log_q_R: Tensor) -> Tensor:
    """`log p - log q`, [R]: on-policy distillation; unbounded below where the teacher is sure."""
    return (log_p_R - log_q_R).detach()


def power_difference(log_p_R: Tensor, log_q_R: Tensor, alpha: float) -> Tensor:
    """`p^alpha - q^alpha`, [R], in [-1, 1] (PowerOPD, arXiv 2606.17199).

    It has the sign of the log-ratio, and over alpha > 0 that as its limit at 0. Its size falls
    with alpha: a learning rate belongs to it, unless the optimiser is invariant to scale.
    """
    return ((alpha * log_p_R).exp() - (alpha * log_q_R).exp()).detach()


def policy_loss(log_q_R: Tensor, reward_R: Tensor) -> Tensor:
    """`-r log q` of each token, [R], to be divided by the tokens of the whole update.

    A mean for each micro-batch would give a token of a short one more weight.
    """
    return -reward_R.detach() * log_q_R


def dial_score(log_p_R: Tensor, log_q_R: Tensor, beta: float) -> Tensor:
    """`|log q/p|^(1 - beta) * |q - p|^beta`, [R] (DIAL-OPD): which tokens are worth learning from.

    At beta 0 the size of the log-ratio, at 1 that of the difference of probabilities.
    """
    size_R = log_ratio(log_p_R, log_q_R).abs()
    # As |log q/p| * L^beta with the logarithmic mean L of p and q: finite also where they agree.
    share_R = torch.where(size_R > 0, -torch.expm1(-size_R) / size_R, 1.0)
    mean_R = torch.maximum(log_p_R, log_q_R).detach().exp() * share_R
    return size_R * mean_R**beta


def num_kept(num_tokens: Tensor, share: float) -> Tensor:
    """Tokens kept of responses with so many: the share, rounded, at least one of any; int64 [G]."""
    return (share * num_tokens.double()).round().long().clamp(min=1).minimum(num_tokens)


def top_tokens(score_R: Tensor, response_R: Tensor, share: float) -> Tensor:
    """The tokens of highest score, `num_kept` of each response: bool [R].

    Args:
        response_R: number of the response that a token belongs to; -1 = of none, never kept.
    """
    kept_R = torch.zeros_like(response_R, dtype=torch.bool)
    for response in response_R.unique().tolist():
        if response >= 0:
            rows = (response_R == response).nonzero()[:, 0]
            count = int(num_kept(torch.tensor(len(rows)), share))
            kept_R[rows[score_R[rows].topk(count).indices]] = True
    return kept_R


def correct_and_short(quality_G: Tensor, ended_G: Tensor, least: float) -> Tensor:
    """Which rollouts are learnt from by likelihood, bool [G] (on-policy SFT).

    Those whose quality is at least so much and that the model ended by itself, within the limit of
    its tokens. No baseline, ratio or clip: the gradient is that of REINFORCE with this as reward.
    """
    return (quality_G >= least) & ended_G
