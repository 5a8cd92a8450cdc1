"""Trains the head of `learned` by what its streams are worth: rollouts, rewards, policy gradient.

Adapters of the model may learn with it. What is rewarded are the decisions: the tokens are greedy,
and change only as far as the adapters that serve the decisions change them.

Legend: N = sources, G = rollouts of each, T = trajectories, D = decisions, F = inputs of the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.calibration import CALIBRATION_FILE, Calibration
from proactivellm.policy.fixed import Offline
from proactivellm.policy.head import Head, head_of
from proactivellm.policy.learned import Learned
from proactivellm.rl.advantage import clipped_loss
from proactivellm.rl.plan import Plan, Reinforcement, check_answers, trainable
from proactivellm.rl.recompute import recompute
from proactivellm.rl.reward import QUALITY_OF, Latency, Rewards, make_rewards, qualities
from proactivellm.rl.rollout import Trajectory, make_sources, roll_out
from proactivellm.rl.sampled import SampledLearned, log_prob, write_logit
from proactivellm.rl.tuned import TunedHead
from proactivellm.rl.written import Source
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, run_streams


@dataclass(frozen=True, kw_only=True)
class PolicyPlan(Plan):
    """How a policy is reinforced; adapters, if any, learn with the head."""

    latency: Latency = "DAL"
    latency_weight: float = 0.5
    # What a rollout may lose on the offline output of its source, 0..1, before its latency counts
    # as the worst; None = there is no gate.
    tolerance: float | None = 0.02
    standardise: bool = True
    lora_learning_rate: float = 1e-4


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


class PolicyReinforcement(Reinforcement):
    """The training of a head: `advance` makes a step, `head` is what it has come to.

    Args:
        policy: bounds, lag weight and threshold, which stay as they are.
        jobs: texts with references.

    Raises:
        ValueError: the model has no head, a source is no text or has no reference, or all are too
            short.
    """

    plan: PolicyPlan

    def __init__(
        self,
        model: StreamingCausalLM,
        policy: Learned,
        jobs: Sequence[Job],
        plan: PolicyPlan | None = None,
        *,
        num_lanes: int = 64,
    ) -> None:
        self.policy, self.plan = policy, plan or PolicyPlan()
        check_answers(jobs)
        self.start = head_of(model)
        super().__init__(model, jobs, make_sources(model, jobs))
        self.num_lanes = num_lanes
        self._tuned: TunedHead | None = None  # from the first rollouts on
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
        sources = self.draw(min(plan.num_sources, len(self.sources)))
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
        size = plan.at_once
        parts = [
            self._decisions(trajectories[at : at + size], worth_T[at : at + size])
            for at in range(0, len(trajectories), size)
        ]
        told = self._update([part for part in parts if len(part.old_D)])
        self.step += 1
        return {"step": self.step, **_means(rewards, plan.latency_weight), **told}

    @property
    def trained(self) -> dict[str, Tensor]:
        """See `Reinforcement`: the head, and adapters."""
        if self._tuned is None:
            return {}
        adapters = {} if self.adapted is None else trainable(self.adapted)
        return {**self._tuned.state_dict(), **adapters}

    def begin(self, state: dict[str, Tensor]) -> None:
        """See `Reinforcement`."""
        self._begin(torch.zeros(2, len(state["mean_F"]), dtype=torch.float64))

    @property
    def inputs(self) -> dict[str, Any]:
        """See `Reinforcement`."""
        return {"policy": self.policy.spec, "head": self.start.digest}

    @property
    def changes_model(self) -> bool:
        """See `Reinforcement`."""
        return self.adapted is not None

    @property
    def told(self) -> str:
        """See `Reinforcement`."""
        rank = self.plan.lora_rank
        adapters = f", with it adapters of rank {rank}, merged into the weights" if rank else ""
        return f"The head of the policy `learned` was trained by {self._reward}{adapters}."

    @property
    def _reward(self) -> str:
        plan, quality = self.plan, QUALITY_OF[self.jobs[0].task]
        gate = "no gate" if plan.tolerance is None else f"tolerance {plan.tolerance:g}"
        return f"reward: {quality} - {plan.latency_weight:g} {plan.latency}, {gate}"

    def save_beside(self, folder: Path, description: str) -> None:
        """See `Reinforcement`: the head; points of `learned`, which are of the other, go."""
        about = {
            "label": self._reward,
            "description": description,
            "num_sources": str(len(self.sources)),
            "auc": "not measured",
        }
        replace(self.head, about=about).save(folder)
        start = self.model.folder
        if start is None or not (start / CALIBRATION_FILE).is_file():
            return
        table = Calibration.load(start)
        points = tuple(point for point in table.points if point.policy != Learned.name)
        default = table.default
        if default is not None and default.partition(":")[0] == Learned.name:
            default = None
        table.model_copy(update={"points": points, "default": default}).save(folder)

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
        assert self.optimizer is not None
        num_decisions = sum(len(part.old_D) for part in parts)
        moved = list[Tensor]()  # by pass: how far log-probabilities are from those of the rollout
        for _ in range(self.plan.passes):
            self.optimizer.zero_grad()
            differences = list[Tensor]()
            for part in parts:
                new_D = self._log_prob(part)
                loss = clipped_loss(new_D, part.old_D, part.advantage_D, self.plan.clip)
                (loss * len(new_D) / num_decisions).backward()  # type: ignore[no-untyped-call]
                differences.append((new_D - part.old_D).detach())
            self.update()
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
        self.add_adapters()
        if self.adapted is not None:
            adapters = [each for each in self.adapted.parameters() if each.requires_grad]
            groups.append({"params": adapters, "lr": self.plan.lora_learning_rate})
        self.optimizer = torch.optim.Adam(groups)


def _means(rewards: Rewards, latency_weight: float) -> dict[str, float]:
    return {
        "reward": float(rewards.total(latency_weight).mean()),
        "quality": float(rewards.quality_NG.mean()),
        "latency": float(rewards.latency_NG.mean()),
        "passed": float(rewards.passed_NG.double().mean()),
    }
