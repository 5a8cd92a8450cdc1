"""Policies that read the source attention at the probe, alone or with the model's confidence.

Papi et al. (EDAtt, AlignAtt) and ProactiveLLM's attention head differ in the statistic; all of them
look at the share of the attention that lies on each source unit, prompt and sinks removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from proactivellm.model.probe import NO_ATTENTION
from proactivellm.policy.base import BoundedPolicy, Observation, Policy
from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.options import check_int, option, parse_int, shown

if TYPE_CHECKING:
    from proactivellm.model.causal_lm import StreamingCausalLM

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
    """Check a choice of attention heads.

    Args:
        heads: (layer, head) pairs, or None for all.

    Returns:
        The same as tuples.

    Raises:
        ValueError: When it is something else.
    """
    if heads is None:
        return None
    pairs = tuple(tuple(pair) for pair in heads)
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"heads must be (layer, head) pairs or None, got {heads!r}")
    for layer, head in pairs:
        check_int("layer of heads", layer, 0)
        check_int("head of heads", head, 0)
    return pairs  # type: ignore[return-value]


def check_heads_exist(heads: Heads | None, layers: int, per_layer: int, where: str) -> None:
    """Refuse attention heads that a model does not have.

    Args:
        heads: (layer, head) pairs, or None for all.
        layers: of the model.
        per_layer: heads in each of them.
        where: what names the heads; begins the line.

    Raises:
        ValueError: naming the first of them.
    """
    for layer, head in heads or ():
        if layer >= layers or head >= per_layer:
            raise ValueError(
                f"{where}: there is no head {layer}.{head}: the model has {layers} layers of "
                f"{per_layer} heads (0.0 to {layers - 1}.{per_layer - 1})"
            )


def check_attention(policy: Policy, model: StreamingCausalLM) -> None:
    """Refuse a policy that asks for attention which a model does not show.

    Args:
        policy: of a stream.
        model: of the stream.

    Raises:
        ValueError: if the model shows none, or has not all heads that the policy names.
    """
    if "attention" in policy.needs and not model.shows_attention:
        raise ValueError(NO_ATTENTION)
    if heads := getattr(policy, "heads", None):  # a policy without options may have no spec either
        check_heads_exist(heads, *model.num_heads, f"policy {policy.spec!r}")


@dataclass(frozen=True, kw_only=True)
class AttentionPolicy(BoundedPolicy):
    """A bounded policy over the source attention of chosen heads.

    Args:
        heads: (layer, head) pairs to average over; None takes all heads. In a spec ``all``,
            ``calibrated`` (from the calibration table) or ``3.1-4.0``.
        min_lag: See BoundedPolicy.
        max_lag: See BoundedPolicy.
        stride: See BoundedPolicy.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"attention"})

    heads: Heads | None = option(default=None, parse=parse_heads, write=format_heads)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "heads", check_heads(self.heads))

    def attention_BU(self, observation: Observation) -> Tensor:
        """Return the share of the source attention on each unit in view, [B, U]."""
        return self._needed(observation.attention_BU, "attention")


@dataclass(frozen=True, kw_only=True)
class FrontierPolicy(AttentionPolicy):
    """An attention policy that tells the newest units from the older ones.

    Args:
        frontier: How many of the newest units count as new, at least 1.
        heads: See AttentionPolicy.
        min_lag: See BoundedPolicy.
        max_lag: See BoundedPolicy.
        stride: See BoundedPolicy.
    """

    frontier: int = option(default=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("frontier", self.frontier, 1)

    def newest_share_B(self, observation: Observation) -> Tensor:
        """Return the share of the source attention on the newest units, [B]."""
        attention_BU = self.attention_BU(observation)
        unit_U = torch.arange(attention_BU.shape[1], device=attention_BU.device)
        newest_BU = unit_U >= (observation.units_in_view_B - self.frontier).unsqueeze(1)
        return (attention_BU * newest_BU).sum(dim=1)  # 0 beyond the units read

    def has_older_B(self, observation: Observation) -> Tensor:
        """Return whether there are units older than the frontier, bool [B]."""
        return observation.units_in_view_B > self.frontier


@dataclass(frozen=True, kw_only=True)
class Attention(FrontierPolicy, ThresholdPolicy):
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
        stride: See BoundedPolicy.
    """

    name: ClassVar[str] = "attention"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(0 < self.threshold <= 1, "above 0 and at most 1")

    def statistic(self, observation: Observation) -> Tensor:
        """Return the share of the source attention on the newest units, [B]."""
        return self.newest_share_B(observation)

    def _write(self, observation: Observation) -> Tensor:
        # The second condition holds by definition; it keeps rounding out of a share that is 1.
        return (self.statistic(observation) < self.threshold) & self.has_older_B(observation)


@dataclass(frozen=True, kw_only=True)
class AlignAtt(FrontierPolicy):
    """Write when the most attended source unit is none of the newest.

    AlignAtt, Papi et al. 2023 (arXiv 2305.11408), on the self-attention of a decoder.

    Args:
        frontier: How many of the newest units count as new, at least 1.
        heads: See AttentionPolicy.
        min_lag: See BoundedPolicy.
        max_lag: See BoundedPolicy.
        stride: See BoundedPolicy.
    """

    name: ClassVar[str] = "alignatt"
    main_key: ClassVar[str | None] = "frontier"

    def _write(self, observation: Observation) -> Tensor:
        most_attended_B = self.attention_BU(observation).argmax(dim=1)
        return most_attended_B < observation.units_in_view_B - self.frontier


@dataclass(frozen=True, kw_only=True)
class Concentration(AttentionPolicy, ThresholdPolicy):
    """Write when one source unit has a large share of the source attention.

    Args:
        threshold: Share of the source attention, above 0 and below 1.
        heads: See AttentionPolicy.
        min_lag: See BoundedPolicy.
        max_lag: See BoundedPolicy.
        stride: See BoundedPolicy.
    """

    name: ClassVar[str] = "concentration"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(0 < self.threshold < 1, "above 0 and below 1")

    def statistic(self, observation: Observation) -> Tensor:
        """Return the largest share of the source attention on one unit, [B]."""
        return self.attention_BU(observation).amax(dim=1)

    def _write(self, observation: Observation) -> Tensor:
        # With a single unit in view the share is 1 and says nothing.
        several_B = observation.units_in_view_B > 1
        return (self.statistic(observation) > self.threshold) & several_B


@dataclass(frozen=True, kw_only=True)
class Combined(FrontierPolicy, ThresholdPolicy):
    """Write when the next token is probable and the source attention is not on the newest units.

    Args:
        threshold: Probability of the most probable token times the share of the source attention
            that is not on the newest units, above 0 and below 1.
        frontier: How many of the newest units count as new, at least 1.
        heads: See AttentionPolicy.
        min_lag: See BoundedPolicy.
        max_lag: See BoundedPolicy.
        stride: See BoundedPolicy.
    """

    name: ClassVar[str] = "combined"
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "confidence"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(0 < self.threshold < 1, "above 0 and below 1")

    def statistic(self, observation: Observation) -> Tensor:
        """Return probability times share on older units, [B]."""
        max_prob_B = self._needed(observation.max_prob_B, "confidence")
        return max_prob_B * (1.0 - self.newest_share_B(observation))

    def _write(self, observation: Observation) -> Tensor:
        return (self.statistic(observation) > self.threshold) & self.has_older_B(observation)
