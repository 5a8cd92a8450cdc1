"""Trains the head of `learned` by what its streams are worth: rollouts, rewards, policy gradient.

Adapters of the model may learn with it. What is rewarded are the decisions: the tokens are greedy,
and change only as far as the adapters that serve the decisions change them.

Legend: N = sources, G = rollouts of each, T = trajectories, D = decisions, F = inputs of the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.metrics.measures import check_references
from proactivellm.policy.fixed import Offline
from proactivellm.policy.head import Head, head_of
from proactivellm.policy.learned import Learned
from proactivellm.rl.advantage import clipped_loss
from proactivellm.rl.recompute import recompute
from proactivellm.rl.reward import Latency, Rewards, make_rewards, qualities
from proactivellm.rl.rollout import Trajectory, make_sources, roll_out
from proactivellm.rl.sampled import SampledLearned, log_prob, write_logit
from proactivellm.rl.tuned import TunedHead
from proactivellm.rl.written import Source
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, run_streams
from proactivellm.train.build import add_adapters
from proactivellm.train.recipe import Lora

_AT_ONCE = 16  # trajectories in a packed forward


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a policy is reinforced."""

    num_steps: int = 20
    num_sources: int = 8  # of a step
    group: int = 8  # rollouts of a source, which are compared with each other
    passes: int = 4  # updates from the rollouts of a step
    learning_rate: float = 0.003
    clip: float = 0.2  # of the ratio of probabilities
    temperature: float = 0.5  # of the draws
    latency: Latency = "DAL"
    latency_weight: float = 0.5
    # What a rollout may lose on the offline output of its source, 0..1, before its latency counts
    # as the worst; None = there is no gate.
    tolerance: float | None = 0.02
    standardise: bool = True
    # Of low-rank adapters on all linear layers, which learn with the head; 0 = the model stays.
    lora_rank: int = 0
    lora_learning_rate: float = 1e-4
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class _Decisions:
    """Those of some trajectories, one after the other."""

    trajectories: Sequence[Trajectory]
    inputs_DF: Tensor  # of the head, by the model as it was in the rollout
    units_D: Tensor
    words_D: Tensor
    write_D: Tensor
    old_D: Tensor  # log-probability in the rollout
    advantage_D: Tensor  # that of its trajectory


class Reinforcement:
    """The training of a head: `advance` makes a step, `head` is what it has come to.

    Args:
        policy: bounds, lag weight and threshold, which stay as they are.
        jobs: texts with references.

    Raises:
        ValueError: the model has no head, a source is no text or has no reference, or all are too
            short.
    """

    def __init__(
        self,
        model: StreamingCausalLM,
        policy: Learned,
        jobs: Sequence[Job],
        plan: Plan | None = None,
        *,
        num_lanes: int = 64,
    ) -> None:
        self.model, self.policy, self.plan = model, policy, plan or Plan()
        check_references(jobs)
        if not jobs or jobs[0].reference is None:
            raise ValueError("rewards need references: give --target")
        self.jobs, self.start = jobs, head_of(model)
        self.sources = make_sources(model, jobs)
        self.num_lanes = num_lanes
        self.step = 0
        self.adapted: PreTrainedModel | None = None  # the model with adapters, while it has some
        self._tuned: TunedHead | None = None  # from the first rollouts on
        self._optimizer: torch.optim.Optimizer | None = None
        self._levels: dict[int, Tensor] | None = None

    @property
    def head(self) -> Head:
        """The head as it is now; its `about` is that of the one it began with."""
        return self.start if self._tuned is None else self._tuned.head()

    def advance(self) -> dict[str, float]:
        """One step: rollouts, their rewards, `passes` updates; gives its numbers.

        `reward`, `quality`, `latency` (before the gate) and `passed` are means over rollouts;
        `kl` is an estimate of how far the step has moved the policy, `gap` the largest difference
        between log-probabilities of the rollout and those computed again.
        """
        plan = self.plan
        sources = self._draw()
        groups = roll_out(
            self.model,
            SampledLearned.like(self.policy, self.head, plan.temperature),
            sources,
            group=plan.group,
            seed=(plan.seed, self.step),
            num_lanes=self.num_lanes,
        )
        instances = [[trajectory.instance for trajectory in group] for group in groups]
        rewards = make_rewards(instances, self._level(sources), plan.latency)
        advantage_NG = rewards.advantages(plan.latency_weight, plan.standardise)
        trajectories = [trajectory for group in groups for trajectory in group]
        worth_T = advantage_NG.flatten()
        parts = [
            self._decisions(trajectories[at : at + _AT_ONCE], worth_T[at : at + _AT_ONCE])
            for at in range(0, len(trajectories), _AT_ONCE)
        ]
        told = self._update([part for part in parts if len(part.old_D)])
        self.step += 1
        return {"step": self.step, **_means(rewards, plan.latency_weight), **told}

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from."""
        if self._tuned is None or self._optimizer is None:
            return {"step": self.step}
        tuned, optimizer = self._tuned.state_dict(), self._optimizer.state_dict()
        state = {"step": self.step, "tuned": tuned, "optimizer": optimizer}
        return state | {"adapters": [each.detach() for each in self._adapters()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same model, policy, sources and plan."""
        self.step = state["step"]
        if "tuned" in state:
            self._begin(torch.zeros(2, len(state["tuned"]["mean_F"]), dtype=torch.float64))
            assert self._tuned is not None and self._optimizer is not None
            self._tuned.load_state_dict(state["tuned"])
            self._optimizer.load_state_dict(state["optimizer"])
            with torch.no_grad():
                for mine, stored in zip(self._adapters(), state["adapters"], strict=True):
                    mine.copy_(stored)

    def _adapters(self) -> list[torch.nn.Parameter]:
        if self.adapted is None:
            return []
        return [each for each in self.adapted.parameters() if each.requires_grad]

    def _draw(self) -> list[Source]:
        """The sources of this step: all of them once, in an order of chance, then again."""
        drawn, size = list[Source](), min(self.plan.num_sources, len(self.sources))
        for at in range(self.step * size, (self.step + 1) * size):
            epoch, place = divmod(at, len(self.sources))
            order = np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.sources))
            drawn.append(self.sources[order[place]])
        return drawn

    def _level(self, sources: Sequence[Source]) -> Tensor | None:
        """The quality that suffices, by source: that of its offline output less the tolerance."""
        if self.plan.tolerance is None:
            return None
        if self._levels is None:
            limits, jobs = Limits(streams=self.num_lanes), [source.job for source in self.sources]
            streams = run_streams(self.model, Offline(), jobs, limits=limits, sampling=Sampling())
            offline = list(streams)
            indices = [instance.index for instance in offline]
            self._levels = dict(zip(indices, qualities(offline), strict=True))
        levels = [self._levels[source.job.index] for source in sources]
        return torch.stack(levels) - self.plan.tolerance

    def _decisions(self, trajectories: Sequence[Trajectory], advantage_T: Tensor) -> _Decisions:
        with torch.no_grad():
            inputs_DF = self._recompute(trajectories)
        sizes_T = torch.tensor([len(each.write_N) for each in trajectories])
        return _Decisions(
            trajectories=trajectories,
            inputs_DF=inputs_DF,
            units_D=torch.cat([each.units_read_N for each in trajectories]),
            words_D=torch.cat([each.words_written_N for each in trajectories]),
            write_D=torch.cat([each.write_N for each in trajectories]),
            old_D=torch.cat([each.log_prob_N for each in trajectories]),
            advantage_D=advantage_T.repeat_interleave(sizes_T),
        )

    def _recompute(self, trajectories: Sequence[Trajectory]) -> Tensor:
        """Inputs of the head, [D, F]."""
        start = self.start
        return torch.cat(recompute(self.model, trajectories, start.scalars, start.layer)).cpu()

    def _update(self, parts: Sequence[_Decisions]) -> dict[str, float]:
        """Move the policy; the decisions of a trajectory share its worth."""
        if not parts:
            raise ValueError(
                f"nothing is left to decide: the bounds of {self.policy.spec!r} settle everything"
            )
        if self._tuned is None:
            self._begin(torch.cat([part.inputs_DF for part in parts]))
        assert self._optimizer is not None
        num_decisions = sum(len(part.old_D) for part in parts)
        moved = list[Tensor]()  # by pass: how far log-probabilities are from those of the rollout
        for _ in range(self.plan.passes):
            self._optimizer.zero_grad()
            differences = list[Tensor]()
            for part in parts:
                new_D = self._log_prob(part)
                loss = clipped_loss(new_D, part.old_D, part.advantage_D, self.plan.clip)
                (loss * len(new_D) / num_decisions).backward()  # type: ignore[no-untyped-call]
                differences.append((new_D - part.old_D).detach())
            self._optimizer.step()
            moved.append(torch.cat(differences))
        num_writes = sum(int(part.write_D.sum()) for part in parts)
        return {
            "decisions": num_decisions,
            "writes": num_writes / num_decisions,
            "kl": -float(moved[-1].mean()),
            "gap": float(moved[0].abs().max()),
        }

    def _log_prob(self, part: _Decisions) -> Tensor:
        """Log-probability of what was done, by the policy as it is now, [D]."""
        assert self._tuned is not None
        frozen = self.adapted is None
        inputs_DF = part.inputs_DF if frozen else self._recompute(part.trajectories)
        logit_D = write_logit(
            self.policy, self.plan.temperature, self._tuned(inputs_DF), part.units_D, part.words_D
        )
        return log_prob(logit_D, part.write_D)

    def _begin(self, inputs_DF: Tensor) -> None:
        """Make what is trained: the head standardised by `inputs_DF`, adapters if asked for."""
        self._tuned = TunedHead(self.start, inputs_DF)
        groups = [{"params": list(self._tuned.parameters()), "lr": self.plan.learning_rate}]
        if self.plan.lora_rank:
            torch.manual_seed(self.plan.seed)
            rank = self.plan.lora_rank
            self.adapted = add_adapters(self.model.model, Lora(r=rank, alpha=2 * rank))
            groups.append({"params": self._adapters(), "lr": self.plan.lora_learning_rate})
        self._optimizer = torch.optim.Adam(groups)


def _means(rewards: Rewards, latency_weight: float) -> dict[str, float]:
    return {
        "reward": float(rewards.total(latency_weight).mean()),
        "quality": float(rewards.quality_NG.mean()),
        "latency": float(rewards.latency_NG.mean()),
        "passed": float(rewards.passed_NG.double().mean()),
    }
