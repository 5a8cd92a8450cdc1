"""What rollouts that think are worth, by a plan, and what is to be learnt of them.

Legend: G = rollouts of a problem, T = tokens that were written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from proactivellm.rl.credit import Credit, token_advantages
from proactivellm.rl.plan import Plan
from proactivellm.rl.reward import qualities
from proactivellm.rl.thinking import ThoughtRollout

_RIGHT = 0.5  # quality from which an answer counts as right: of numbers and verdicts it is 0 or 1


@dataclass(frozen=True, kw_only=True)
class ThinkingPlan(Plan):
    """How thinking is reinforced; all weights learn, or adapters alone."""

    num_steps: int = 50
    group: int = 12
    passes: int = 1
    learning_rate: float = 1e-4
    clip_high: float = 0.28  # how far the ratio of probabilities may rise; it may fall by `clip`
    temperature: float = 1.0
    max_grad_norm: float = 1.0
    credit: Credit = "stage"
    weight: float = 0.3  # of the local advantage; 0 = GRPO
    price: float = 0.02  # of a token, in the local advantage
    # Of a rollout as a whole: 1 for the right answer, this for ending all by itself, less this for
    # each token of its thoughts.
    format_weight: float = 0.1
    global_price: float = 0.0
    # With the credit `likelihood` a rollout is worth 1 if its answer is right, it ended all by
    # itself and its thoughts have at most so many tokens, else 0 (none: any number will do). Of
    # several lengths, the next begins after `length_steps` steps, see `rl.curriculum`.
    lengths: tuple[int, ...] = ()
    length_steps: int = 10
    least_entropy: float = 0.0  # nats per token of rollouts of sources that are held out
    held_out: int = 16  # sources, the last ones, where there are several lengths
    # Times that further problems are drawn in place of those whose rollouts are all worth the same.
    redraws: int = 2


class Judged(NamedTuple):
    """The rollouts of a problem, what they are worth, which are right, and advantages by token."""

    group: Sequence[ThoughtRollout]
    reward_G: Tensor
    right_G: Tensor
    advantages: list[Tensor]

    def lesson(self, plan: ThinkingPlan) -> list[tuple[ThoughtRollout, Tensor]]:
        """What the loss is a mean over: all of the group, if any of it teaches something.

        Of `likelihood`, what is worth nothing is no sample.
        """
        both = list(zip(self.group, self.advantages, strict=True))
        taught = [(one, advantage) for one, advantage in both if advantage.any()]
        return taught if plan.credit == "likelihood" or not taught else both


def judge(group: Sequence[ThoughtRollout], plan: ThinkingPlan, length: int | None) -> Judged:
    """The worth of the rollouts of a problem; `length` bounds the thoughts of `likelihood`."""
    quality_G = qualities([each.instance for each in group])
    right_G = quality_G >= _RIGHT
    whole_G = torch.tensor([each.is_whole for each in group])
    spent = [each.spent(deep=False) + each.spent(deep=True) for each in group]
    if plan.credit == "likelihood":
        short_G = torch.tensor([length is None or number <= length for number in spent])
        reward_G = (right_G & whole_G & short_G).double()
    else:
        price_G = plan.global_price * torch.tensor(spent, dtype=torch.float64)
        reward_G = quality_G + plan.format_weight * whole_G - price_G
    how = {"weight": plan.weight, "price": plan.price}
    advantages = token_advantages(group, reward_G, right_G, **how, credit=plan.credit)
    return Judged(group, reward_G, right_G, advantages)


def means(judged: Sequence[Judged]) -> dict[str, float]:
    """Of all rollouts of a step; see `ThinkingReinforcement.advance`."""
    every = [rollout for each in judged for rollout in each.group]
    thought = [t.tokens > 1 for one in every for t in one.instance.thoughts or () if not t.stage]
    return {
        "reward": float(torch.cat([each.reward_G for each in judged]).mean()),
        "accuracy": float(torch.cat([each.right_G for each in judged]).double().mean()),
        "whole": float(np.mean([one.is_whole for one in every])),
        "stream_tokens": float(np.mean([one.spent(deep=False) for one in every])),
        "deep_tokens": float(np.mean([one.spent(deep=True) for one in every])),
        "think_rate": float(np.mean(thought)),
    }
