"""Reinforces when to think: HRPO (AdaSR, arXiv 2606.14694) on rollouts of the engine.

GRPO and on-policy SFT are other kinds of credit in the same loop (`rl.credit`).
The loop, the clipping and the leaving out of groups that teach nothing are those of DAPO (arXiv
2503.14476). There is no KL term.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.fixed import WaitK
from proactivellm.rl.advantage import clipped_loss
from proactivellm.rl.curriculum import Climb, Curriculum, Verdict
from proactivellm.rl.judging import Judged, ThinkingPlan, judge, means
from proactivellm.rl.plan import Reinforcement, check_answers, trainable
from proactivellm.rl.reward import QUALITY_OF
from proactivellm.rl.thinking import (
    ThoughtRollout,
    make_problems,
    think,
    thought_entropy,
    thought_log_probs,
)
from proactivellm.rl.written import Source
from proactivellm.session.limits import Limits
from proactivellm.stream import Job


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
        self.curriculum = _curriculum(self.plan)
        self.climb: Climb | None = None
        self.held_out = list[Source]()
        if self.curriculum:
            number = self.plan.held_out
            self.sources, self.held_out = self.sources[:-number], [*self.sources[-number:]]
            if not self.sources:
                raise ValueError(
                    f"several lengths hold {number} problems out, and there are {len(jobs)}: give "
                    "more, or one length"
                )

    def advance(self) -> dict[str, float]:
        """One step: rollouts, what each token is credited with, `passes` updates; its numbers.

        `reward`, `accuracy`, `whole` (ended by itself), `stream_tokens`, `deep_tokens` are means
        over all rollouts, `think_rate` over sentences; `kept` is the share of groups that taught
        something, `learnt` how many tokens were, and `moved` how far the last pass found their
        log-probabilities from those before the first, at most. Of several lengths there is
        `length`, and at the end of one `entropy`, see `ThinkingPlan`.
        """
        plan, learnt, judged = self.plan, list[tuple[ThoughtRollout, Tensor]](), list[Judged]()
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
                judged.append(judge(group, plan, self.length))
                if lesson := judged[-1].lesson(plan):
                    kept += 1
                    learnt += lesson
        told = self._update(learnt) if learnt else {"learnt": 0, "moved": 0.0}
        self.step += 1
        return {
            "step": self.step,
            **means(judged),
            "kept": kept / len(judged),
            **told,
            **self._climb(),
        }

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
        if self.curriculum:
            self.climb = Climb(self.curriculum, lambda: self.trained)

    @property
    def length(self) -> int | None:
        """Most tokens of the thoughts of a rollout that is worth something; None = any number."""
        if self.curriculum:
            return self.curriculum.stable if self.stopped else self.curriculum.length
        return self.plan.lengths[0] if self.plan.lengths else None

    def state_dict(self) -> dict[str, Any]:
        """See `Reinforcement`."""
        state = super().state_dict()
        if self.climb:
            state |= {"climb": self.climb.place, "stable": self.climb.stable}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Reinforcement`."""
        super().load_state_dict(state)
        if self.climb:
            self.climb.go_on(state["climb"], state["stable"])

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
            short = "" if self.length is None else f", of {self.length} tokens at most"
            return (
                f"{learnt} were trained on the model's own thoughts and answers, as far as the "
                f"answer was right and they had an end of their own{short}."
                + (f" {self.stopped}" if self.stopped else "")
            )
        return (
            f"{learnt} were trained by reward: {quality} + {plan.format_weight:g} for an end of "
            f"its own - {plan.global_price:g} a token of its thoughts; credit by {plan.credit}, of "
            f"weight {plan.weight:g}, {plan.price:g} a token."
        )

    def save_beside(self, folder: Path, description: str) -> None:
        """See `Reinforcement`: there is nothing."""

    def _climb(self) -> dict[str, float]:
        """Do what a curriculum says after an update; at its end the run is over."""
        if self.climb is None:
            return {}
        length = self.climb.curriculum.length
        told: dict[str, float] = {"length": length}
        if self.climb.advance(self._entropy) == Verdict.STOP:
            stable = self.climb.curriculum.stable
            back = f"what {stable} had come to" if stable else "what it was, for none was passed"
            self.stopped = (
                f"At {length} tokens its entropy, {self.climb.entropy:.3g}, was below "
                f"{self.plan.least_entropy:g}: the model went back to {back}."
            )
        if self.climb.entropy is not None:
            told["entropy"] = self.climb.entropy
        return told

    def _entropy(self, length: int) -> float:
        """Of the model as it is, at what it writes for the held-out problems, of any length."""
        temperature = self.plan.temperature
        groups = think(
            self.model,
            WaitK(k=1),
            self.held_out,
            group=1,
            limits=self.limits,
            temperature=temperature,
            seed=(self.plan.seed, self.step),
        )
        return thought_entropy(self.model, [one for (one,) in groups], temperature)

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


def _curriculum(plan: ThinkingPlan) -> Curriculum | None:
    """Of several lengths; ValueError unless they rise."""
    if len(plan.lengths) < 2:
        return None
    return Curriculum(
        lengths=plan.lengths, steps=plan.length_steps, least_entropy=plan.least_entropy
    )
