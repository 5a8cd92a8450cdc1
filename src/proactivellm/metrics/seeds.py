"""Curves of several trainings, each compared with the other curve of its own seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from proactivellm.metrics.bootstrap import Floats
from proactivellm.metrics.curves import Curve, Gap, gap_of


class Pair(NamedTuple):
    """What is compared under one seed."""

    first: Curve
    second: Curve
    ceiling: Curve | None = None  # of the model of the first


@dataclass(frozen=True, kw_only=True)
class SeedGap:
    """How far curves lie above others at one latency, over seeds.

    `mean` holds means over the seeds; its intervals are over instances, of these very seeds.
    """

    mean: Gap
    qualities: Sequence[float]  # of the first curve under each seed
    gaps: Sequence[float]  # under each seed
    # Under each seed gap / (ceiling - second curve), 1 = all of the way; empty where one of them
    # has no ceiling, or it does not reach.
    shares: Sequence[float]


def seed_gap(pairs: Sequence[Pair], at: Sequence[Floats]) -> SeedGap | None:
    """The gap at one latency for each seed, and their mean; None where a curve does not reach.

    Args:
        pairs: one for each seed, with the same number of resamples.
        at: of each seed the latency, [1 + B].
    """
    each = list(zip(pairs, at, strict=True))
    if not each or not all(_reaches(c, x) for pair, x in each for c in pair[:2]):
        return None
    firsts = [pair.first.at(x) for pair, x in each]
    seconds = [pair.second.at(x) for pair, x in each]
    latency = float(np.mean([x[0] for x in at]))
    gaps = [float(a[0] - b[0]) for a, b in zip(firsts, seconds, strict=True)]
    ways = [_way(pair, x) for pair, x in each]
    return SeedGap(
        mean=gap_of(latency, np.mean(firsts, axis=0), np.mean(seconds, axis=0)),
        qualities=[float(quality[0]) for quality in firsts],
        gaps=gaps,
        # Where the lower is the better, gap and way are both below 0.
        shares=[gap / way for gap, way in zip(gaps, ways, strict=True) if way] if all(ways) else [],
    )


def _way(pair: Pair, at: Floats) -> float | None:
    """From the second curve to the ceiling; None where the latter does not reach."""
    if pair.ceiling is None or not _reaches(pair.ceiling, at):
        return None
    return float(pair.ceiling.at(at)[0] - pair.second.at(at)[0])


def _reaches(curve: Curve, at: Floats) -> bool:
    low, high = curve.span()
    return low <= at[0] <= high
