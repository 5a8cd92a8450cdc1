"""What each token of a rollout that thinks is credited with: HRPO, and coarser and finer kinds.

AdaSR (arXiv 2606.14694) compares the rollouts of a problem at two levels: all tokens by what the
rollout was worth, those of a stage by what that stage cost. Its formulas are not public; these are
ours. Legend: G = rollouts of a problem, T = tokens that were written.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from proactivellm.rl.advantage import group_relative
from proactivellm.rl.thinking import ANSWER

# `rollout` is GRPO: one worth for all tokens. The others compare, beside it, what was spent on a
# stage (thoughts about sentences, or deep ones) or on a sentence; `boundary` credits that of a
# stage to the tokens alone that close thoughts or open stages. `likelihood` compares nothing: what
# is worth 1 is learnt as it is, what is worth 0 not at all (on-policy SFT).
Credit = Literal["rollout", "stage", "sentence", "boundary", "likelihood"]


class Credited(Protocol):
    """What is looked at of a rollout."""

    @property
    def parts(self) -> Sequence[int]:
        """By token, the sentence that it is about, DEEP or ANSWER."""

    @property
    def bounds(self) -> Sequence[bool]:
        """By token, whether it closes a thought, or opens a stage or the answer."""


def token_advantages(
    group: Sequence[Credited],
    reward_G: Tensor,
    right_G: Tensor,
    *,
    weight: float,
    price: float,
    credit: Credit = "stage",
) -> list[Tensor]:
    """The advantage of every token of the rollouts of one problem, [T] each.

    `(1 - weight) * global + weight * local`. The global one is the group-relative reward, over its
    standard deviation. The local one is `price` times the tokens that a stage has less than the
    mean of the rollouts that are right. It is not divided, as it would outweigh the answer as soon
    as all are right, and 0 for wrong ones, so that nothing is saved at the cost of the answer.
    Tokens of the answer have none. With `likelihood` it is the reward itself: with no baseline and
    a reward of 0 or 1, the policy gradient is that of the cross-entropy of what was worth 1.

    Args:
        reward_G: what each rollout is worth as a whole.
        right_G: bool, whether its answer is right.
        weight: 0..1; of 0, and with `rollout`, this is GRPO.
    """
    if credit == "likelihood":
        return [one.expand(len(each.parts)) for each, one in zip(group, reward_G, strict=True)]
    global_G = group_relative(reward_G[None])[0]
    share = 0.0 if credit == "rollout" else weight
    local = [_saved(group, number, right_G, price, credit) for number in range(len(group))]
    return [
        share * torch.tensor(each, dtype=global_G.dtype) + (1 - share) * worth
        for each, worth in zip(local, global_G, strict=True)
    ]


def _saved(
    group: Sequence[Credited], number: int, right_G: Tensor, price: float, credit: Credit
) -> list[float]:
    """The local advantage of each token of a rollout."""
    one = group[number]
    if not right_G[number]:
        return [0.0] * len(one.parts)
    by_sentence = credit == "sentence"
    spent = [_spent(each, by_sentence) for each in group]
    compared = [each for each, right in zip(spent, right_G.tolist(), strict=True) if right]
    mean = {part: sum(each[part] for each in compared) / len(compared) for part in spent[number]}
    saved = {part: price * (mean[part] - spent[number][part]) for part in mean}
    return [
        0.0
        if part == ANSWER or (credit == "boundary" and not bound)
        else saved[_place(part, by_sentence)]
        for part, bound in zip(one.parts, one.bounds, strict=True)
    ]


def _place(part: int, by_sentence: bool) -> int:
    return part if by_sentence or part < 0 else 0


def _spent(one: Credited, by_sentence: bool) -> Counter[int]:
    """Tokens by stage (0 and DEEP), or by sentence and DEEP."""
    return Counter(_place(part, by_sentence) for part in one.parts if part != ANSWER)
