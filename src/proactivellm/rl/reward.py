"""What a rollout is worth: its quality, and a latency that counts only where the quality suffices.

The gate is that of HPO (arXiv 2604.21045): a rollout of too little quality has the worst latency,
so that speed cannot pay for errors. Legend: N = sources, G = rollouts of each.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from proactivellm.metrics.counting import Counted, resolve
from proactivellm.metrics.latency import (
    differentiable_average_lagging,
    length_adaptive_average_lagging,
)
from proactivellm.metrics.measures import measure_quality
from proactivellm.output.log import Instance, Task
from proactivellm.rl.advantage import group_relative

Latency = Literal["LAAL", "DAL"]
WORST = 1.0  # latency of an offline policy, and of one that fails the gate
# Of single instances; chrF, because BLEU of one sentence is mostly 0 or a matter of its smoothing.
QUALITY_OF: Mapping[Task, str] = {
    "translation": "chrF",
    "qa": "F1",
    "choice": "accuracy",
    "reasoning": "accuracy",
    "summary": "ROUGE-L",
    "asr": "WER",
}


class Rewards(NamedTuple):
    """Of rollouts, float64 [N, G]."""

    quality_NG: Tensor  # 0..1, 1 at best
    latency_NG: Tensor  # share of the source, 0..1, before the gate
    passed_NG: Tensor  # bool, whether the quality suffices

    @property
    def gated_NG(self) -> Tensor:
        """Latency as it counts: the worst where the quality does not suffice."""
        return self.latency_NG.masked_fill(~self.passed_NG, WORST)

    def total(self, weight: float) -> Tensor:
        """Quality less `weight` times the latency as it counts, [N, G]: what a curve shows."""
        return self.quality_NG - weight * self.gated_NG

    def advantages(self, weight: float, standardise: bool = True) -> Tensor:
        """Group-relative quality less `weight` times group-relative latency, [N, G].

        Each is standardised by itself, as in HPO, so that `weight` does not depend on how far
        rollouts differ in one or the other.
        """
        quality_NG = group_relative(self.quality_NG, standardise)
        return quality_NG - weight * group_relative(self.gated_NG, standardise)


def make_rewards(
    groups: Sequence[Sequence[Instance]], level_N: Tensor | None, latency: Latency
) -> Rewards:
    """The rewards of rollouts.

    Args:
        level_N: quality that suffices, by source; None = any does (no gate).
    """
    counted = resolve([instance for group in groups for instance in group])
    quality_NG = torch.stack([qualities(group, counted) for group in groups])
    lags = [[lag_share(instance, counted, latency) for instance in group] for group in groups]
    if level_N is None:
        passed_NG = torch.ones_like(quality_NG, dtype=torch.bool)
    else:
        passed_NG = quality_NG >= level_N[:, None]
    return Rewards(quality_NG, torch.tensor(lags, dtype=torch.float64), passed_NG)


def qualities(instances: Sequence[Instance], counted: Counted | None = None) -> Tensor:
    """Quality of single instances against their references, 0..1, float64: see QUALITY_OF.

    ValueError if they cannot be scored.
    """
    name = QUALITY_OF[instances[0].task]
    statistics = measure_quality(instances, counted or resolve(instances))[name]
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.nan_to_num(np.asarray(statistics.score(statistics.values), np.float64))
    share = torch.from_numpy(scores) / 100
    return (1 - share if name == "WER" else share).clamp(0, 1)


def lag_share(instance: Instance, counted: Counted, latency: Latency) -> float:
    """LAAL or DAL as a share of the source, 0..1; the worst if nothing was written."""
    instance = counted.unit.convert(instance)
    delays, length = instance.delays, instance.source_length
    if latency == "DAL":
        lag = differentiable_average_lagging(delays, length)
    else:
        wanted = counted.unit.length(instance.reference)
        lag = length_adaptive_average_lagging(delays, length, wanted)
    return WORST if lag is None else min(max(lag / length, 0.0), WORST)
