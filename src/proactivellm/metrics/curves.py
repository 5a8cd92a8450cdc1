"""Quality at equal latency: one curve of policies against another, with intervals.

Two policies rarely meet at the same latency, so a curve is interpolated between its points. All
points are scored on the same resamples of the instances, and each resample gives a difference.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from proactivellm.metrics.bootstrap import NUM_RESAMPLES, TAILS, Floats, Statistics, resample
from proactivellm.metrics.counting import Counting, resolve
from proactivellm.metrics.measures import measure
from proactivellm.output.log import Instance

Name = TypeVar("Name")


@dataclass(frozen=True, eq=False)
class Curve:
    """Policies of one family over the same sources, in the order of their latency."""

    latency: Floats  # [1 + B, P]: of each policy P, as measured and then of each of the B resamples
    quality: Floats  # likewise

    def span(self) -> tuple[float, float]:
        """The least and the largest latency."""
        return float(self.latency[0, 0]), float(self.latency[0, -1])

    def at(self, latency: Floats) -> Floats:
        """Quality of each row at its latency, [1 + B]: linear between points, constant beyond."""
        rows = zip(latency, self.latency, self.quality, strict=True)
        return np.array([np.interp(x, *_sorted(points, values)) for x, points, values in rows])


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How far a curve, or a policy, lies above another curve at one latency."""

    latency: float  # where
    quality: float  # of the first curve there
    interval: float  # half the width of its 95% interval
    gap: float  # the first minus the second
    low: float  # of the 95% interval of the gap
    high: float


def make_curve(
    logs: Sequence[Sequence[Instance]],
    quality: str = "BLEU",
    latency: str = "LAAL",
    num_resamples: int = NUM_RESAMPLES,
    counting: Counting | None = None,
) -> Curve:
    """The curve of some policies, see `make_points`.

    Raises:
        ValueError: the logs are not over the same sources, or none has both scores.
    """
    points = make_points(dict(enumerate(logs)), (quality, latency), num_resamples, counting)
    return points.curve(range(len(logs)), quality, latency)


@dataclass(frozen=True, eq=False)
class Points(Generic[Name]):
    """Policies by name, each with its scores: as measured, then of the resamples, [1 + B]."""

    scores: Mapping[Name, Mapping[str, Floats]]

    def curve(self, names: Iterable[Name], quality: str, latency: str) -> Curve:
        """The curve of these policies; those without one of the two scores are left out.

        Raises a ValueError if none has both.
        """
        rows = [self.scores[name] for name in names]
        rows = [row for row in rows if quality in row and latency in row]
        if not rows:
            raise ValueError(f"no policy of the curve has both {quality} and {latency}")
        columns = [np.stack([row[wanted] for row in rows], axis=1) for wanted in (latency, quality)]
        # By what was measured, in every row: a column has to stay one policy.
        order = np.argsort(columns[0][0])
        return Curve(columns[0][:, order], columns[1][:, order])


def make_points(
    logs: Mapping[Name, Sequence[Instance]],
    wanted: Sequence[str],
    num_resamples: int = NUM_RESAMPLES,
    counting: Counting | None = None,
) -> Points[Name]:
    """Scores policies, and their resamples; scores that are undefined are left out.

    Args:
        logs: of each policy, over the same sources in the same order.
        wanted: names of scores.
        num_resamples: curves that are compared must have the same number.
        counting: tokens of BLEU and unit of latency; by the script of the references if left out.

    Raises:
        ValueError: the logs are not over the same sources.
    """
    if len({tuple((i.index, i.source) for i in log) for log in logs.values()}) > 1:
        raise ValueError("the policies of a curve must have streamed the same sources")
    found: dict[tuple[Name, str], Statistics] = {}
    for policy, log in logs.items():
        scores = measure(log, resolve(log, counting))
        for name in wanted:
            if name in scores and scores[name].corpus() is not None:
                found[policy, name] = scores[name]
    # One call for all points: they must share the drawings, or their differences would be noise.
    drawn = resample(found, num_resamples)
    points: dict[Name, dict[str, Floats]] = {policy: {} for policy in logs}
    for (policy, name), samples in drawn.items():
        points[policy][name] = np.concatenate([[found[policy, name].corpus()], samples])
    return Points(points)


def point_gaps(first: Curve, second: Curve) -> list[Gap | None]:
    """Each policy of a curve against another curve, at the policy's own latency.

    In the order of `first`; None where the second curve does not reach.
    """
    low, high = second.span()
    return [
        gap_of(float(x[0]), quality, second.at(x)) if low <= x[0] <= high else None
        for x, quality in zip(first.latency.T, first.quality.T, strict=True)
    ]


def gap_of(latency: float, quality: Floats, other: Floats) -> Gap:
    """The gap between two qualities, [1 + B] each: as measured, then of the resamples."""
    difference = quality - other
    low, high = np.nanpercentile(difference[1:], TAILS)
    ends = np.nanpercentile(quality[1:], TAILS)
    return Gap(
        latency=latency,
        quality=float(quality[0]),
        interval=float(ends[1] - ends[0]) / 2,
        gap=float(difference[0]),
        low=float(low),
        high=float(high),
    )


def _sorted(points: Floats, values: Floats) -> tuple[Floats, Floats]:
    """A resample may order the policies otherwise by latency; `np.interp` needs them ascending."""
    order = np.argsort(points)
    return points[order], values[order]
