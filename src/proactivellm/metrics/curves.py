"""Quality at equal latency: one curve of policies against another, with intervals.

Two policies rarely meet at the same latency, so a curve is interpolated between its points. All
points are scored on the same resamples of the instances, and each resample gives a difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proactivellm.metrics.bootstrap import NUM_RESAMPLES, TAILS, Floats, Statistics, resample
from proactivellm.metrics.counting import Counting, resolve
from proactivellm.metrics.measures import measure
from proactivellm.output.log import Instance


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
    """Scores policies, and their resamples; policies without one of the two scores are left out.

    `logs` are of each policy, over the same sources in the same order. Curves that are compared
    must have the same number of resamples. Raises a ValueError if the sources differ, or no policy
    has both scores.
    """
    if len({tuple((i.index, i.source) for i in log) for log in logs}) > 1:
        raise ValueError("the policies of a curve must have streamed the same sources")
    points: dict[tuple[int, str], Statistics] = {}
    for number, log in enumerate(logs):
        scores = measure(log, resolve(log, counting))
        if all(name in scores and scores[name].corpus() is not None for name in (quality, latency)):
            points |= {(number, name): scores[name] for name in (quality, latency)}
    if not points:
        raise ValueError(f"no policy of the curve has both {quality} and {latency}")
    # One call for all points: they must share the drawings, or their differences would be noise.
    drawn = resample(points, num_resamples)
    rows = {key: np.concatenate([[points[key].corpus()], drawn[key]]) for key in points}
    columns = [
        np.stack([row for (_, name), row in rows.items() if name == wanted], axis=1)
        for wanted in (latency, quality)
    ]
    # By what was measured, in every row: a column has to stay one policy.
    order = np.argsort(columns[0][0])
    return Curve(columns[0][:, order], columns[1][:, order])


def gaps(first: Curve, second: Curve, at: Sequence[float]) -> list[Gap | None]:
    """One curve against another at chosen latencies; None where one of them does not reach."""
    low = max(first.span()[0], second.span()[0])
    high = min(first.span()[1], second.span()[1])
    return [
        _gap(x, first.at(column), second.at(column)) if low <= x <= high else None
        for x in at
        for column in [np.full(len(first.latency), x)]
    ]


def point_gaps(first: Curve, second: Curve) -> list[Gap | None]:
    """Each policy of a curve against another curve, at the policy's own latency.

    In the order of `first`; None where the second curve does not reach.
    """
    low, high = second.span()
    return [
        _gap(float(x[0]), quality, second.at(x)) if low <= x[0] <= high else None
        for x, quality in zip(first.latency.T, first.quality.T, strict=True)
    ]


def _gap(latency: float, quality: Floats, other: Floats) -> Gap:
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
