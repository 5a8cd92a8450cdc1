"""How long rollouts may be: longer step by step, while the student keeps its entropy.

The reverse KL on short rollouts makes a student sure of itself, and one that is sure writes nothing
in longer ones that it could learn from (arXiv 2605.16826).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)


class Verdict(StrEnum):
    """What a curriculum does after an update."""

    HOLD = "hold"  # go on at this length
    PROMOTE = "promote"  # what was learnt at this length is kept; go on at the next
    STOP = "stop"  # go back to what was kept last, and end


@dataclass(kw_only=True)
class Curriculum:
    """A ladder of lengths, and where on it a run stands.

    Attributes:
        lengths: most tokens of a rollout, rising.
        steps: updates at each length.
        least_entropy: of the student per token of its own rollouts of held-out sources, nats, at
            the end of a length; below it the length was too much.
    """

    lengths: Sequence[int]
    steps: int
    least_entropy: float
    rung: int = 0
    done: int = 0  # updates at this length
    stable: int | None = None  # the last length that was passed; None = none was

    def __post_init__(self) -> None:
        pairs = zip(self.lengths, self.lengths[1:], strict=False)
        if not self.lengths or any(later <= earlier for earlier, later in pairs):
            raise ValueError(f"lengths of a curriculum must rise, got {list(self.lengths)}")

    @property
    def length(self) -> int:
        """Most tokens of a rollout now."""
        return self.lengths[self.rung]

    @property
    def asks(self) -> bool:
        """Whether the entropy is to be measured after the update that comes."""
        return self.done + 1 >= self.steps

    def advance(self, entropy: float | None) -> Verdict:
        """After an update: hold, promote or stop.

        `entropy` is that of held-out rollouts, where `asks` was true before the update. At the last
        length, a run that passes goes on to its end.
        """
        self.done += 1
        if self.done < self.steps:
            return Verdict.HOLD
        assert entropy is not None
        if entropy < self.least_entropy:
            return Verdict.STOP
        self.stable, self.done = self.length, 0
        if self.rung + 1 == len(self.lengths):
            return Verdict.HOLD
        self.rung += 1
        return Verdict.PROMOTE


class Climb:
    """A run on its way up a curriculum: after an update it looks where it stands, or goes back.

    Args:
        weights: what learns, by name, shared with the model; asked for anew each time, as a model
            may be given other tensors on its way to a device.
    """

    def __init__(self, curriculum: Curriculum, weights: Callable[[], Mapping[str, Tensor]]) -> None:
        self.curriculum, self.weights = curriculum, weights
        self.stable = _copy(weights())  # as they were at the last length that was passed
        self.entropy: float | None = None  # after the last update, if it was measured

    def advance(self, entropy_at: Callable[[int], float]) -> Verdict:
        """After an update; `entropy_at` measures that of held-out rollouts of a length, if need be.

        At STOP the weights are again those of the last length that was passed.
        """
        gate = self.curriculum
        asks, length = gate.asks, gate.length
        self.entropy = entropy_at(length) if asks else None
        verdict = gate.advance(self.entropy)
        if self.entropy is not None:
            log.info("entropy %.3f at %d tokens: %s", self.entropy, length, verdict)
        if verdict == Verdict.STOP:
            with torch.no_grad():
                for name, weight in self.weights().items():
                    weight.copy_(self.stable[name])
        elif asks:
            self.stable = _copy(self.weights())
        return verdict

    @property
    def place(self) -> dict[str, Any]:
        """Where it stands, ready for JSON; what `go_on` takes."""
        ladder = ("lengths", "steps", "least_entropy")
        return {
            name: value for name, value in asdict(self.curriculum).items() if name not in ladder
        }

    def go_on(self, place: Mapping[str, Any], stable: dict[str, Tensor]) -> None:
        """Stand where a run was left."""
        for name, value in place.items():
            setattr(self.curriculum, name, value)
        self.stable = stable


def _copy(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in weights.items()}
