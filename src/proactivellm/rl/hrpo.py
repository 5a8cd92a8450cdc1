"""Reinforces when to think: HRPO (AdaSR, arXiv 2606.14694) on rollouts of the engine.

The loop, the clipping and the leaving out of groups that teach nothing are those of DAPO (arXiv
2503.14476). There is no KL term.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.fixed import WaitK
from proactivellm.rl.advantage import clipped_loss
from proactivellm.rl.credit import Credit, token_advantages
from proactivellm.rl.plan import Plan, Reinforcement, check_answers, trainable
from proactivellm.rl.reward import QUALITY_OF, qualities
from proactivellm.rl.thinking import ThoughtRollout, make_problems, think, thought_log_probs
from proactivellm.session.limits import Limits
from proactivellm.stream import Job

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
    # itself and its thoughts have at most so many tokens, else 0 (None: any number will do).
    most_tokens: int | None = None
    # Times that further problems are drawn in place of those whose rollouts are all worth the same.
    redraws: int = 2


class _Judged(NamedTuple):
    """The rollouts of a problem, what they are worth, which are right, and advantages by token."""

    group: Sequence[ThoughtRollout]
    reward_G: Tensor
    right_G: Tensor
    advantages: list[Tensor]


class ThinkingReinforcement(Reinforcement):
    """The training of a model that thinks: `advance` makes a step, the model learns in place.

    Args:
        jobs: problems as `tasks.jobs.read_jobs` makes them, with their answers.
        limits: of the engine: streams at once, the longest thought, the depth.

    Raises:
        ValueError: the model does not think, or a problem has no words or no answer.
    """

    plan: ThinkingPlan

    def __init__(
        self,
        model: StreamingCausalLM,
        jobs: Sequence[Job],
        plan: ThinkingPlan | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.plan = plan or ThinkingPlan()
        self.limits = limits or Limits(streams=64)
        check_answers(jobs)
        super().__init__(model, jobs, make_problems(model, jobs))

    def advance(self) -> dict[str, float]:
        """One step: rollouts, what each token is credited with, `passes` updates; its numbers.

        `reward`, `accuracy`, `whole` (ended by itself), `stream_tokens`, `deep_tokens` are means
        over all rollouts, `think_rate` over sentences; `kept` is the share of groups that taught
        something, `learnt` how many tokens were, and `moved` how far the last pass found their
        log-probabilities from those before the first, at most.
        """
        plan, learnt, judged = self.plan, list[tuple[ThoughtRollout, Tensor]](), list[_Judged]()
        kept = 0
        if self.optimizer is None:
            self.begin({})
        for _ in range(1 + plan.redraws):
            wanted = plan.num_sources - kept
            if not wanted:
                break
            groups = think(
                self.model,
                WaitK(k=1),
                self.draw(wanted),
                group=plan.group,
                limits=self.limits,
                temperature=plan.temperature,
                seed=(plan.seed, self.step),
            )
            for group in groups:
                judged.append(self._judge(group))
                advantages = judged[-1].advantages
                if any(bool(each.any()) for each in advantages):
                    kept += 1
                    learnt += self._learnt(group, advantages)
        told = self._update(learnt) if learnt else {"learnt": 0, "moved": 0.0}
        self.step += 1
        return {"step": self.step, **_means(judged), "kept": kept / len(judged), **told}

    @property
    def trained(self) -> dict[str, Tensor]:
        """See `Reinforcement`."""
        return trainable(self.adapted or self.model.model)

    def begin(self, state: dict[str, Tensor]) -> None:
        """See `Reinforcement`."""
        self.add_adapters()
        learnt = self.adapted or self.model.model
        weights = [weight for weight in learnt.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=self.plan.learning_rate, weight_decay=0.0)

    @property
    def inputs(self) -> dict[str, Any]:
        """See `Reinforcement`."""
        limits = self.limits
        return {"thought_tokens": limits.thought_tokens, "depth": limits.depth}

    @property
    def changes_model(self) -> bool:
        """See `Reinforcement`."""
        return True

    @property
    def told(self) -> str:
        """See `Reinforcement`."""
        plan, quality = self.plan, QUALITY_OF[self.jobs[0].task]
        learnt = "Adapters, merged into the weights," if plan.lora_rank else "All weights"
        if plan.credit == "likelihood":
            short = "" if plan.most_tokens is None else f", of {plan.most_tokens} tokens at most"
            return (
                f"{learnt} were trained on the model's own thoughts and answers, as far as the "
                f"answer was right and they had an end of their own{short}."
            )
        return (
            f"{learnt} were trained by reward: {quality} + {plan.format_weight:g} for an end of "
            f"its own - {plan.global_price:g} a token of its thoughts; credit by {plan.credit}, of "
            f"weight {plan.weight:g}, {plan.price:g} a token."
        )

    def save_beside(self, folder: Path, description: str) -> None:
        """See `Reinforcement`: there is nothing."""

    def _judge(self, group: Sequence[ThoughtRollout]) -> _Judged:
        plan = self.plan
        quality_G = qualities([each.instance for each in group])
        right_G = quality_G >= _RIGHT
        whole_G = torch.tensor([each.is_whole for each in group])
        spent_G = torch.tensor([each.spent(deep=False) + each.spent(deep=True) for each in group])
        if plan.credit == "likelihood":
            most = plan.most_tokens
            short_G = spent_G <= most if most is not None else torch.ones_like(whole_G)
            reward_G = (right_G & whole_G & short_G).double()
        else:
            reward_G = quality_G + plan.format_weight * whole_G - plan.global_price * spent_G
        how = {"weight": plan.weight, "price": plan.price}
        advantages = token_advantages(group, reward_G, right_G, **how, credit=plan.credit)
        return _Judged(group, reward_G, right_G, advantages)

    def _learnt(
        self, group: Sequence[ThoughtRollout], advantages: Sequence[Tensor]
    ) -> list[tuple[ThoughtRollout, Tensor]]:
        """What the loss is a mean over: a whole group, or of `likelihood` what is worth something.

        What teaches nothing there is no sample either.
        """
        both = zip(group, advantages, strict=True)
        every = self.plan.credit != "likelihood"
        return [(one, advantage) for one, advantage in both if every or advantage.any()]

    def _update(self, learnt: Sequence[tuple[ThoughtRollout, Tensor]]) -> dict[str, float]:
        """Move the weights; the loss is a mean over all tokens that were chosen."""
        plan, size = self.plan, self.plan.at_once
        parts = [learnt[at : at + size] for at in range(0, len(learnt), size)]
        with torch.no_grad():
            old = [self._log_probs(part) for part in parts]
        # What could not have been another token has a log-probability of 0, and is no choice.
        chosen = [old_T != 0 for old_T in old]
        num_tokens = sum(int(each.sum()) for each in chosen)
        assert self.optimizer is not None
        for _ in range(plan.passes):
            self.optimizer.zero_grad()
            moved = 0.0
            for part, old_T, chosen_T in zip(parts, old, chosen, strict=True):
                new_T = self._log_probs(part)[chosen_T]
                worth_T = torch.cat([each for _, each in part]).to(new_T)[chosen_T]
                loss = clipped_loss(new_T, old_T[chosen_T], worth_T, plan.clip, plan.clip_high)
                (loss * len(new_T) / max(1, num_tokens)).backward()  # type: ignore[no-untyped-call]
                changed_T = (new_T.detach() - old_T[chosen_T]).abs()
                moved = max(moved, float(changed_T.max()) if len(changed_T) else 0.0)
            self.update()
        return {"learnt": num_tokens, "moved": moved}

    def _log_probs(self, part: Sequence[tuple[ThoughtRollout, Tensor]]) -> Tensor:
        rollouts = [rollout for rollout, _ in part]
        return torch.cat(thought_log_probs(self.model, rollouts, self.plan.temperature))


def _means(judged: Sequence[_Judged]) -> dict[str, float]:
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
