"""Policies against a family of others at equal latency, in every measure of latency."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from proactivellm.metrics.bootstrap import NUM_RESAMPLES
from proactivellm.metrics.counting import Counting
from proactivellm.metrics.curves import Curve, Gap, Points, make_points, point_gaps
from proactivellm.metrics.measures import QUALITIES_OF
from proactivellm.output.log import Instance

# LAAL forgives a lag that is made good at the end of a sentence within the source, DAL does not.
AT_EQUAL = ("LAAL", "RCO", "DAL")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a policy lies above the baseline, by measure of latency.

    `gaps` are None where the baseline does not reach the latency of the policy. `shares` are of the
    way from the baseline to the ceiling at that latency, gap / (ceiling - baseline), 1 = all of it;
    None where one of them does not reach.
    """

    policy: str
    gaps: Mapping[str, Gap | None]
    shares: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Standings:
    """All policies against a family; `asdict` makes it ready for JSON."""

    quality: str  # the main score of the task
    baseline: str
    ceiling: str | None
    num_bootstrap: int
    rows: Sequence[Standing]


def standings(
    logs: Mapping[str, Sequence[Instance]],
    baseline: str,
    ceiling: str | None = None,
    num_resamples: int = NUM_RESAMPLES,
    counting: Counting | None = None,
) -> Standings:
    """Every policy against those of a family, in the main score of the task.

    Intervals are those of the paired bootstrap over instances.

    Args:
        logs: by policy, over the same sources in the same order.
        baseline: name of a family of policies, such as "wait-k".
        ceiling: another family, such as "oracle".

    Raises:
        ValueError: the logs are not over the same sources, or a family has no policy there.
    """
    quality = QUALITIES_OF[next(iter(logs.values()))[0].task][0]
    points = make_points(logs, (quality, *AT_EQUAL), num_resamples, counting)
    families = [_members(logs, name) for name in (baseline, ceiling) if name is not None]
    curves = {
        latency: [points.curve(family, quality, latency) for family in families]
        for latency in AT_EQUAL
    }
    return Standings(
        quality=quality,
        baseline=baseline,
        ceiling=ceiling,
        num_bootstrap=num_resamples,
        rows=[_standing(points, policy, quality, curves) for policy in logs],
    )


def family_of(request: str) -> str:
    """The name of a policy: what stands before the colon."""
    return request.partition(":")[0]


def _members(policies: Iterable[str], family: str) -> list[str]:
    found = [policy for policy in policies if family_of(policy) == family]
    if not found:
        names = ", ".join(dict.fromkeys(map(family_of, policies)))
        raise ValueError(f"there is no policy of the family {family!r}, but of {names}")
    return found


def _standing(
    points: Points[str], policy: str, quality: str, curves: Mapping[str, Sequence[Curve]]
) -> Standing:
    gaps: dict[str, Gap | None] = {}
    shares: dict[str, float | None] = {}
    for latency, (baseline, *ceiling) in curves.items():
        gaps[latency] = shares[latency] = None
        if not {quality, latency} <= points.scores[policy].keys():
            continue
        own = points.curve([policy], quality, latency)
        (gap,) = point_gaps(own, baseline)
        gaps[latency] = gap
        if gap is not None and ceiling:
            shares[latency] = _share(gap, baseline, ceiling[0])
    return Standing(policy=policy, gaps=gaps, shares=shares)


def _share(gap: Gap, baseline: Curve, ceiling: Curve) -> float | None:
    low, high = ceiling.span()
    at = np.full(len(ceiling.latency), gap.latency)
    way = float(ceiling.at(at)[0] - baseline.at(at)[0])
    # Where the lower is the better, both are below 0.
    reached = low <= gap.latency <= high and way != 0
    return gap.gap / way if reached else None
