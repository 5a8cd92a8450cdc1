"""Policies that read the model's own state at the probe: entropy, confidence, source attention.

Each compares one statistic of a lane with a threshold, inside the bounds min_lag and max_lag.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from proactivellm.policy.base import BoundedPolicy, Observation
from proactivellm.policy.options import check_int, check_number, option, parse_float

Heads = tuple[tuple[int, int], ...]

CALIBRATED = "calibrated"


def parse_heads(text: str) -> Heads | str | None:
    """Read a choice of attention heads.

    Args:
        text: ``all``, ``calibrated`` (those in the calibration table), or layer.head pairs joined
            by dashes, such as ``3.1-4.0``.

    Returns:
        None for all, CALIBRATED, or the (layer, head) pairs.

    Raises:
        ValueError: When it is none of them.
    """
    if text in ("all", "none"):
        return None
    if text == CALIBRATED:
        return CALIBRATED
    if not re.fullmatch(r"\d+\.\d+(-\d+\.\d+)*", text):
        raise ValueError(
            f"must be all, calibrated, or layer.head pairs such as 3.1-4.0, got {text!r}"
        )
    pairs = (pair.split(".") for pair in text.split("-"))
    return tuple((int(layer), int(head)) for layer, head in pairs)


def format_heads(heads: Heads | None) -> str:
    """Write a choice of heads, the inverse of `parse_heads`."""
    return "all" if heads is None else "-".join(f"{layer}.{head}" for layer, head in heads)


@dataclass(frozen=True, kw_only=True)
class ThresholdPolicy(BoundedPolicy):
    """A bounded policy with a threshold, which calibration can set.

    Args:
        threshold: Where the statistic turns from READ to WRITE.
        min_lag: See BoundedPolicy.
        max_lag: See BoundedPolicy.
    """

    main_key: ClassVar[str | None] = "threshold"

    threshold: float = option(parse=parse_float)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("threshold", self.threshold)

    @abstractmethod
    def statistic(self, observation: Observation) -> Tensor:
        """Return what is compared with the threshold, [B]; calibration looks at it too."""

    def _check_threshold(self, valid: bool, valid_range: str) -> None:
        if not valid:
            raise ValueError(
                f"threshold of {self.name} must be {valid_range}, got {self.threshold}"
            )


@dataclass(frozen=True, kw_only=True)
class Entropy(ThresholdPolicy):
    """Write when the entropy of the next-token distribution is below a threshold.

    ProactiveLLM, Tong et al. 2026 (arXiv 2606.00523).

    Args:
        threshold: Nats, above 0.
        top: Entropy of the renormalised `top` most probable tokens; 0 takes the whole vocabulary.
        min_lag: See BoundedPolicy.
        max_lag: See BoundedPolicy.
    """

    name: ClassVar[str] = "entropy"
    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})

    top: int = option(default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(self.threshold > 0, "above 0 nats")
        check_int("top", self.top, 0)
        if self.top == 1:
            raise ValueError("top must be 0 (all tokens) or at least 2, got 1: always certain")

    def statistic(self, observation: Observation) -> Tensor:
        """Return the entropy, nats [B]."""
        return self._needed(observation.entropy_B, "entropy")

    def _write(self, observation: Observation) -> Tensor:
        return self.statistic(observation) < self.threshold


@dataclass(frozen=True, kw_only=True)
class Confidence(ThresholdPolicy):
    """Write when the most probable next token is more probable than a threshold.

    Args:
        threshold: Probability, between 0 and 1.
        min_lag: See BoundedPolicy.
        max_lag: See BoundedPolicy.
    """

    name: ClassVar[str] = "confidence"
    needs: ClassVar[frozenset[str]] = frozenset({"confidence"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(0 < self.threshold < 1, "above 0 and below 1")

    def statistic(self, observation: Observation) -> Tensor:
        """Return the probability of the most probable token, [B]."""
        return self._needed(observation.max_prob_B, "confidence")

    def _write(self, observation: Observation) -> Tensor:
        return self.statistic(observation) > self.threshold


@dataclass(frozen=True, kw_only=True)
class Attention(ThresholdPolicy):
    """Write when little of the source attention is on the newest units.

    A share instead of AlignAtt's argmax (Papi et al. 2023, arXiv 2305.11408). With no unit older
    than the frontier all attention is on it, so the lane READs.

    Args:
        threshold: Share of the source attention, above 0 and at most 1.
        frontier: How many of the newest units count as new, at least 1.
        heads: (layer, head) pairs to average over; None takes all heads. In a spec ``all``,
            ``calibrated`` (from the calibration table) or ``3.1-4.0``.
        min_lag: See BoundedPolicy.
        max_lag: See BoundedPolicy.
    """

    name: ClassVar[str] = "attention"
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})

    frontier: int = option(default=1)
    heads: Heads | None = option(default=None, parse=parse_heads, write=format_heads)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(0 < self.threshold <= 1, "above 0 and at most 1")
        check_int("frontier", self.frontier, 1)
        if self.heads is None:
            return
        heads = tuple(tuple(pair) for pair in self.heads)
        if not heads or any(len(pair) != 2 for pair in heads):
            raise ValueError(f"heads must be (layer, head) pairs or None, got {self.heads!r}")
        for pair in heads:
            check_int("layer of heads", pair[0], 0)
            check_int("head of heads", pair[1], 0)
        object.__setattr__(self, "heads", heads)

    def statistic(self, observation: Observation) -> Tensor:
        """Return the share of the source attention on the newest units, [B]."""
        attention_BU = self._needed(observation.attention_BU, "attention")
        units_B = observation.units_in_view_B
        unit_U = torch.arange(attention_BU.shape[1], device=attention_BU.device)
        newest_BU = unit_U >= (units_B - self.frontier).unsqueeze(1)
        return (attention_BU * newest_BU).sum(dim=1)  # 0 beyond the units read

    def _write(self, observation: Observation) -> Tensor:
        # The second condition holds by definition; it keeps rounding out of a share that is 1.
        below_B = self.statistic(observation) < self.threshold
        return below_B & (observation.units_in_view_B > self.frontier)
