"""Policies that read the source attention at the probe, alone or with the model's confidence.

Papi et al. (EDAtt, AlignAtt) and ProactiveLLM's attention head differ in the statistic; all of them
look at the share of the attention that lies on each source unit, prompt and sinks removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from proactivellm.policy import evidence
from proactivellm.policy.base import BoundedPolicy
from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.evidence import Evidence, Heads, Seen
from proactivellm.policy.options import check_int, option, parse_int, shown

CALIBRATED = "calibrated"


def parse_heads(text: str) -> Heads | str | None:
    """Read ``all`` (None), ``calibrated`` (CALIBRATED) or layer.head pairs such as ``3.1-4.0``.

    ValueError when it is none of them.
    """
    if text in ("all", "none"):
        return None
    if text == CALIBRATED:
        return CALIBRATED
    if not re.fullmatch(r"[0-9]+\.[0-9]+(-[0-9]+\.[0-9]+)*", text):
        raise ValueError(
            f"must be all, calibrated, or layer.head pairs such as 3.1-4.0, got {shown(text)}"
        )
    pairs = (pair.split(".") for pair in text.split("-"))
    return tuple((parse_int(layer), parse_int(head)) for layer, head in pairs)


def format_heads(heads: Heads | None) -> str:
    """Write a choice of heads, the inverse of `parse_heads`."""
    return "all" if heads is None else "-".join(f"{layer}.{head}" for layer, head in heads)


def check_heads(heads: Heads | None) -> Heads | None:
    """Return (layer, head) pairs as tuples, or None for all; ValueError for anything else."""
    if heads is None:
        return None
    pairs = tuple(tuple(pair) for pair in heads)
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"heads must be (layer, head) pairs or None, got {heads!r}")
    for layer, head in pairs:
        check_int("layer of heads", layer, 0)
        check_int("head of heads", head, 0)
    return pairs  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class AttentionPolicy(BoundedPolicy):
    """A bounded policy over the source attention of chosen heads."""

    # (layer, head) pairs to average over; None takes all heads. In a spec ``all``, ``calibrated``
    # (from the calibration table) or ``3.1-4.0``
    heads: Heads | None = option(default=None, parse=parse_heads, write=format_heads)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "heads", check_heads(self.heads))

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        return (evidence.Attention(self.heads),)

    def attention_BU(self, seen: Seen) -> Tensor:
        """Return the share of the source attention on each unit in view, [B, U]."""
        return seen[self.evidence[0]]


@dataclass(frozen=True, kw_only=True)
class FrontierPolicy(AttentionPolicy):
    """An attention policy for which the newest `frontier` units, at least 1, count as new."""

    frontier: int = option(default=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("frontier", self.frontier, 1)

    def newest_share_B(self, seen: Seen) -> Tensor:
        """Return the share of the source attention on the newest units, [B]."""
        attention_BU = self.attention_BU(seen)
        unit_U = torch.arange(attention_BU.shape[1], device=attention_BU.device)
        newest_BU = unit_U >= (seen.units_in_view_B - self.frontier).unsqueeze(1)
        return (attention_BU * newest_BU).sum(dim=1)  # 0 beyond the units read

    def has_older_B(self, seen: Seen) -> Tensor:
        """Return whether there are units older than the frontier, bool [B]."""
        return seen.units_in_view_B > self.frontier


@dataclass(frozen=True, kw_only=True)
class Attention(FrontierPolicy, ThresholdPolicy):
    """Write when little of the source attention is on the newest units.

    A share instead of AlignAtt's argmax (Papi et al. 2023, arXiv 2305.11408), above 0 and at most
    1. With no unit older than the frontier all attention is on it, so the lane READs.
    """

    name: ClassVar[str] = "attention"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(0 < self.threshold <= 1, "above 0 and at most 1")

    def statistic(self, seen: Seen) -> Tensor:
        return self.newest_share_B(seen)

    def writes(self, seen: Seen) -> Tensor:
        # The second condition holds by definition; it keeps rounding out of a share that is 1.
        return (self.statistic(seen) < self.threshold) & self.has_older_B(seen)


@dataclass(frozen=True, kw_only=True)
class Concentration(AttentionPolicy, ThresholdPolicy):
    """Write when one source unit has a large share of the source attention.

    The threshold is a share above 0 and below 1.
    """

    name: ClassVar[str] = "concentration"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(0 < self.threshold < 1, "above 0 and below 1")

    def statistic(self, seen: Seen) -> Tensor:
        return self.attention_BU(seen).amax(dim=1)

    def writes(self, seen: Seen) -> Tensor:
        # With a single unit in view the share is 1 and says nothing.
        several_B = seen.units_in_view_B > 1
        return (self.statistic(seen) > self.threshold) & several_B


@dataclass(frozen=True, kw_only=True)
class Combined(FrontierPolicy, ThresholdPolicy):
    """Write when the next token is probable and the source attention is not on the newest units.

    The threshold is for the probability of the most probable token times the share of the source
    attention that is not on the newest units, above 0 and below 1.
    """

    name: ClassVar[str] = "combined"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(0 < self.threshold < 1, "above 0 and below 1")

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        return evidence.Attention(self.heads), evidence.Confidence()

    def statistic(self, seen: Seen) -> Tensor:
        max_prob_B = seen[self.evidence[1]]
        return max_prob_B * (1.0 - self.newest_share_B(seen))

    def writes(self, seen: Seen) -> Tensor:
        return (self.statistic(seen) > self.threshold) & self.has_older_B(seen)
