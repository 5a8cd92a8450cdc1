"""How much better a rollout was than others of its source, and the loss that makes it likelier.

Legend: N = sources, G = rollouts of each; D = decisions.
"""

import torch
from torch import Tensor

_TINY = 1e-6


def group_relative(score_NG: Tensor, standardise: bool = True) -> Tensor:
    """Scores less the mean of their group, over its standard deviation (GRPO, arXiv 2402.03300).

    Without `standardise` they are not divided (Dr. GRPO, arXiv 2503.20783), so that differences
    keep their size. Exactly 0 where a group is all alike.
    """
    centred_NG = score_NG - score_NG.mean(-1, keepdim=True)
    alike_N1 = score_NG.amax(-1, keepdim=True) == score_NG.amin(-1, keepdim=True)
    centred_NG = centred_NG.masked_fill(alike_N1, 0.0)
    if not standardise:
        return centred_NG
    return centred_NG / (score_NG.std(-1, keepdim=True, correction=0) + _TINY)


def clipped_loss(
    new_D: Tensor, old_D: Tensor, advantage_D: Tensor, clip: float, clip_high: float | None = None
) -> Tensor:
    """Clipped policy gradient (PPO, arXiv 1707.06347, eq. 7), the mean over decisions; a scalar.

    `new_D` and `old_D` are log-probabilities of what was done, now and in the rollout.

    Args:
        clip_high: how far the ratio may rise, where that is not `clip` (DAPO, arXiv 2503.14476).
    """
    ratio_D = (new_D - old_D).exp()
    bounded_D = ratio_D.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    return -torch.minimum(ratio_D * advantage_D, bounded_D * advantage_D).mean()
