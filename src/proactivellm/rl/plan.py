"""What kinds of reinforcement have in common: the plan, the draws, the updates, the state."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.metrics.measures import check_references
from proactivellm.rl.written import Source
from proactivellm.stream import Job
from proactivellm.train.build import add_adapters
from proactivellm.train.recipe import Lora


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a reinforcement goes."""

    num_steps: int = 20
    num_sources: int = 8  # of a step
    group: int = 8  # rollouts of a source, which are compared with each other
    passes: int = 4  # updates from the rollouts of a step
    learning_rate: float = 0.003
    clip: float = 0.2  # of the ratio of probabilities
    temperature: float = 0.5  # of the draws
    lora_rank: int = 0  # of low-rank adapters on all linear layers; 0 = there are none
    max_grad_norm: float = 0.0  # 0 = no clipping
    at_once: int = 16  # rollouts in a packed forward
    seed: int = 0


class Reinforcement(ABC):
    """A training by rewards: `advance` makes a step, in place; it can be saved and continued.

    Args:
        jobs: texts with references.
        sources: the same in units, as far as there is something to learn from them.

    Raises:
        ValueError: there are no references.
    """

    plan: Plan
    optimizer: torch.optim.Optimizer | None = None  # from the first update on

    def __init__(
        self, model: StreamingCausalLM, jobs: Sequence[Job], sources: Sequence[Source]
    ) -> None:
        self.model, self.jobs, self.sources = model, jobs, sources
        self.step, self.num_drawn = 0, 0
        self.stopped = ""  # why it ended before the last step, as a sentence
        self.adapted: PreTrainedModel | None = None  # the model with adapters, while it has some

    @property
    def ended(self) -> bool:
        """Whether there is no step left."""
        return bool(self.stopped) or self.step >= self.plan.num_steps

    @abstractmethod
    def advance(self) -> dict[str, float]:
        """One step: rollouts, their rewards, `passes` updates; gives its numbers."""

    @property
    @abstractmethod
    def trained(self) -> dict[str, Tensor]:
        """What learns, by name, as it is now; empty before it is there."""

    @property
    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """What a run depends on beside model, data and plan, ready for JSON."""

    @abstractmethod
    def begin(self, state: dict[str, Tensor]) -> None:
        """Make what `trained` and `optimizer` are, of the shapes of an earlier run."""

    @property
    @abstractmethod
    def changes_model(self) -> bool:
        """Whether the weights of the model learn."""

    @property
    @abstractmethod
    def told(self) -> str:
        """What learnt by what reward, as a sentence of the model's card."""

    @abstractmethod
    def save_beside(self, folder: Path, description: str) -> None:
        """Write what of the model is not its weights, and differs from what it began with."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from."""
        state = {"step": self.step, "num_drawn": self.num_drawn, "stopped": self.stopped}
        if self.optimizer is None:
            return state
        return {**state, "trained": self.trained, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same model, sources and plan."""
        self.step, self.num_drawn = state["step"], state["num_drawn"]
        self.stopped = state.get("stopped", "")  # runs of before have none
        if "trained" not in state:
            return
        self.begin(state["trained"])
        assert self.optimizer is not None
        self.optimizer.load_state_dict(state["optimizer"])
        mine = self.trained
        if mine.keys() != state["trained"].keys():
            raise ValueError("it trains other weights")
        for name, stored in state["trained"].items():
            mine[name].copy_(stored)

    def draw(self, number: int) -> list[Source]:
        """The next sources: all of them once, in an order of chance, then again."""
        drawn = list[Source]()
        for at in range(self.num_drawn, self.num_drawn + number):
            epoch, place = divmod(at, len(self.sources))
            order = np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.sources))
            drawn.append(self.sources[order[place]])
        self.num_drawn += number
        return drawn

    def add_adapters(self) -> None:
        """Adapt the model in place, as far as the plan says so."""
        if self.plan.lora_rank:
            torch.manual_seed(self.plan.seed)
            rank = self.plan.lora_rank
            self.adapted = add_adapters(self.model.model, Lora(r=rank, alpha=2 * rank))

    def update(self) -> None:
        """Move what learns by its gradients; ValueError, and nothing moves, if one is no number."""
        assert self.optimizer is not None
        weights = [each for group in self.optimizer.param_groups for each in group["params"]]
        norm = nn.utils.clip_grad_norm_(weights, self.plan.max_grad_norm or torch.inf)
        if not norm.isfinite():
            raise ValueError(
                f"the gradient norm of step {self.step + 1} is {float(norm):g}: nothing of it was "
                f"learnt or saved; lower the learning rate ({self.plan.learning_rate:g})"
            )
        self.optimizer.step()


def check_answers(jobs: Sequence[Job]) -> None:
    """ValueError unless all jobs have references, which rewards are made of."""
    check_references(jobs)
    if not jobs or jobs[0].reference is None:
        raise ValueError("rewards need references: give --target")


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The weights that learn, by name, shared with the model."""
    return {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}
