"""Reinforces when to think: HRPO (AdaSR, arXiv 2606.14694) on rollouts of the engine.

The loop, the clipping and the leaving out of groups that teach nothing are those of DAPO (arXiv
2503.14476). There is no KL term.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.metrics.measures import check_references
from proactivellm.policy.fixed import WaitK
from proactivellm.rl.advantage import clipped_loss
from proactivellm.rl.credit import Credit, token_advantages
from proactivellm.rl.reward import qualities
from proactivellm.rl.thinking import ThoughtRollout, make_problems, think, thought_log_probs
from proactivellm.rl.written import Source
from proactivellm.session.limits import Limits
from proactivellm.stream import Job
from proactivellm.train.build import add_adapters
from proactivellm.train.recipe import Lora

_RIGHT = 0.5  # quality from which an answer counts as right: of numbers and verdicts it is 0 or 1


@dataclass(frozen=True, kw_only=True)
class ThinkingPlan:
    """How thinking is reinforced."""

    num_steps: int = 50
    num_problems: int = 8  # of a step
    group: int = 12  # rollouts of a problem, which are compared with each other
    passes: int = 1  # updates from the rollouts of a step
    learning_rate: float = 1e-4
    clip: float = 0.2  # how far the ratio of probabilities may fall
    clip_high: float = 0.28  # and rise
    temperature: float = 1.0  # of the draws
    credit: Credit = "stage"
    weight: float = 0.3  # of the local advantage; 0 = GRPO
    price: float = 0.02  # of a token, in the local advantage
    # Of a rollout as a whole: 1 for the right answer, this for ending all by itself, less this for
    # each token of its thoughts.
    format_weight: float = 0.1
    global_price: float = 0.0
    # Times that further problems are drawn in place of those whose rollouts are all worth the same.
    redraws: int = 2
    lora_rank: int = 0  # of low-rank adapters, which alone are trained; 0 = all weights are
    max_grad_norm: float = 1.0
    at_once: int = 16  # rollouts in a packed forward
    seed: int = 0


class ThinkingReinforcement:
    """The training of a model that thinks: `advance` makes a step, the model learns in place.

    Args:
        jobs: problems as `tasks.jobs.read_jobs` makes them, with their answers.
        limits: of the engine: streams at once, the longest thought, the depth.

    Raises:
        ValueError: the model does not think, or a problem has no words or no answer.
    """

    def __init__(
        self,
        model: StreamingCausalLM,
        jobs: Sequence[Job],
        plan: ThinkingPlan | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.model, self.plan = model, plan or ThinkingPlan()
        self.limits = limits or Limits(streams=64)
        check_references(jobs)
        if not jobs or jobs[0].reference is None:
            raise ValueError("rewards need answers: the problems have none")
        self.sources = make_problems(model, jobs)
        self.step, self._drawn = 0, 0
        learnt: Any = model.model
        if self.plan.lora_rank:
            torch.manual_seed(self.plan.seed)
            rank = self.plan.lora_rank
            learnt = add_adapters(model.model, Lora(r=rank, alpha=2 * rank))
        self.adapted = learnt if self.plan.lora_rank else None
        self._weights = [weight for weight in learnt.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._weights, lr=self.plan.learning_rate, weight_decay=0.0
        )

    def advance(self) -> dict[str, float]:
        """One step: rollouts, what each token is credited with, `passes` updates; its numbers.

        `accuracy`, `whole` (ended by itself), `stream_tokens`, `deep_tokens` are means over all
        rollouts, `think_rate` over sentences; `kept` is the share of groups that taught something,
        `learnt` how many tokens were, and `moved` how far the last pass found their
        log-probabilities from those before the first, at most.
        """
        plan, learnt, all_of = self.plan, list[tuple[ThoughtRollout, Tensor]](), []
        num_groups = kept = 0
        for _ in range(1 + plan.redraws):
            wanted = plan.num_problems - kept
            if not wanted:
                break
            groups = think(
                self.model,
                WaitK(k=1),
                self._draw(wanted),
                group=plan.group,
                limits=self.limits,
                temperature=plan.temperature,
                seed=(plan.seed, self.step),
            )
            for group in groups:
                advantages, right_G = self._judge(group)
                all_of += [*zip(group, right_G.tolist(), strict=True)]
                num_groups += 1
                if any(bool(each.any()) for each in advantages):
                    kept += 1
                    learnt += zip(group, advantages, strict=True)
        told = self._update(learnt) if learnt else {"learnt": 0, "moved": 0.0}
        self.step += 1
        return {"step": self.step, **_means(all_of), "kept": kept / num_groups, **told}

    def save(self, folder: str | Path) -> None:
        """Write the model as it is now; adapters are merged into it, and the run is used up."""
        if self.adapted is not None:
            self.adapted.merge_and_unload()
        self.model.save_pretrained(folder)

    def _draw(self, number: int) -> list[Source]:
        """The next problems: all of them once, in an order of chance, then again."""
        drawn = list[Source]()
        for at in range(self._drawn, self._drawn + number):
            epoch, place = divmod(at, len(self.sources))
            order = np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.sources))
            drawn.append(self.sources[order[place]])
        self._drawn += number
        return drawn

    def _judge(self, group: Sequence[ThoughtRollout]) -> tuple[list[Tensor], Tensor]:
        """Advantages of all tokens, and which answers are right, bool [G]."""
        plan = self.plan
        quality_G = qualities([each.instance for each in group])
        whole_G = torch.tensor([each.is_whole for each in group], dtype=torch.float64)
        spent = [each.spent(deep=False) + each.spent(deep=True) for each in group]
        price_G = plan.global_price * torch.tensor(spent, dtype=torch.float64)
        reward_G = quality_G + plan.format_weight * whole_G - price_G
        right_G = quality_G >= _RIGHT
        how = {"weight": plan.weight, "price": plan.price}
        return token_advantages(group, reward_G, right_G, **how, credit=plan.credit), right_G

    def _update(self, learnt: Sequence[tuple[ThoughtRollout, Tensor]]) -> dict[str, float]:
        """Move the weights; the loss is a mean over all tokens that were chosen."""
        plan, size = self.plan, self.plan.at_once
        parts = [learnt[at : at + size] for at in range(0, len(learnt), size)]
        with torch.no_grad():
            old = [self._log_probs(part) for part in parts]
        # What could not have been another token has a log-probability of 0, and is no choice.
        chosen = [old_T != 0 for old_T in old]
        num_tokens = sum(int(each.sum()) for each in chosen)
        for _ in range(plan.passes):
            self._optimizer.zero_grad()
            moved = 0.0
            for part, old_T, chosen_T in zip(parts, old, chosen, strict=True):
                new_T = self._log_probs(part)[chosen_T]
                worth_T = torch.cat([each for _, each in part]).to(new_T)[chosen_T]
                loss = clipped_loss(new_T, old_T[chosen_T], worth_T, plan.clip, plan.clip_high)
                (loss * len(new_T) / max(1, num_tokens)).backward()  # type: ignore[no-untyped-call]
                changed_T = (new_T.detach() - old_T[chosen_T]).abs()
                moved = max(moved, float(changed_T.max()) if len(changed_T) else 0.0)
            torch.nn.utils.clip_grad_norm_(self._weights, plan.max_grad_norm)
            self._optimizer.step()
        return {"learnt": num_tokens, "moved": moved}

    def _log_probs(self, part: Sequence[tuple[ThoughtRollout, Tensor]]) -> Tensor:
        rollouts = [rollout for rollout, _ in part]
        return torch.cat(thought_log_probs(self.model, rollouts, self.plan.temperature))


def _means(rollouts: Sequence[tuple[ThoughtRollout, bool]]) -> dict[str, float]:
    every = [rollout for rollout, _ in rollouts]
    thought = [t.tokens > 1 for one in every for t in one.instance.thoughts or () if not t.stage]
    return {
        "accuracy": float(np.mean([right for _, right in rollouts])),
        "whole": float(np.mean([one.is_whole for one in every])),
        "stream_tokens": float(np.mean([one.spent(deep=False) for one in every])),
        "deep_tokens": float(np.mean([one.spent(deep=True) for one in every])),
        "think_rate": float(np.mean(thought)),
    }
