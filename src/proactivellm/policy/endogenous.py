"""Policies that read the next-token distribution at the probe: entropy, confidence, control token.

Each compares one statistic of a lane with a threshold, inside the bounds min_lag and max_lag.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from proactivellm.policy import evidence
from proactivellm.policy.base import BoundedPolicy, Policy
from proactivellm.policy.evidence import Evidence, Seen
from proactivellm.policy.options import check_int, check_number, option, parse_float


@dataclass(frozen=True, kw_only=True)
class ThresholdPolicy(BoundedPolicy):
    """A bounded policy with a threshold, which calibration can set, for a statistic."""

    main_key: ClassVar[str | None] = "threshold"

    threshold: float = option(parse=parse_float)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("threshold", self.threshold)

    def statistic(self, seen: Seen) -> Tensor:
        """Return what is compared with the threshold, [B]: the evidence, unless there is more."""
        (only,) = self.evidence
        return seen[only]

    def _check_threshold(self, valid: bool, valid_range: str) -> None:
        if not valid:
            raise ValueError(
                f"threshold of {self.name} must be {valid_range}, got {self.threshold}"
            )


def statistic_of(policy: Policy, seen: Seen) -> float | None:
    """What a policy compares with its threshold, of one lane; None if it was not looked at."""
    if isinstance(policy, ThresholdPolicy) and {*policy.evidence} <= {*seen.evidence}:
        return float(policy.statistic(seen))
    return None


@dataclass(frozen=True, kw_only=True)
class Entropy(ThresholdPolicy):
    """Write when the entropy of the next-token distribution is below a threshold.

    ProactiveLLM, Tong et al. 2026 (arXiv 2606.00523).

    Args:
        threshold: Nats, above 0.
    """

    name: ClassVar[str] = "entropy"

    # Entropy of the renormalised `top` most probable tokens; 0 takes the whole vocabulary.
    top: int = option(default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(self.threshold > 0, "above 0 nats")
        check_int("top", self.top, 0)
        if self.top == 1:
            raise ValueError("top must be 0 (all tokens) or at least 2, got 1: always certain")

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        return (evidence.Entropy(self.top),)

    def writes(self, seen: Seen) -> Tensor:
        return self.statistic(seen) < self.threshold


@dataclass(frozen=True, kw_only=True)
class Confidence(ThresholdPolicy):
    """Write when the most probable next token is more probable than a threshold."""

    name: ClassVar[str] = "confidence"
    evidence = (evidence.Confidence(),)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(0 < self.threshold < 1, "above 0 and below 1")

    def writes(self, seen: Seen) -> Tensor:
        return self.statistic(seen) > self.threshold


@dataclass(frozen=True, kw_only=True)
class Control(ThresholdPolicy):
    """Read while the control token, which training teaches, is more probable than a threshold."""

    name: ClassVar[str] = "control"
    evidence = (evidence.Control(),)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(0 < self.threshold < 1, "above 0 and below 1")

    def writes(self, seen: Seen) -> Tensor:
        return self.statistic(seen) <= self.threshold
