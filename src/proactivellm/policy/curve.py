"""Target against threshold and quality: curves through measured points, and the choice among them.

Legend: a target is what a user asks for instead of a threshold, such as a lag.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from proactivellm.policy.options import Scalar


class Choice(NamedTuple):
    """A point on a curve."""

    target: float
    threshold: float
    quality: float
    options: Mapping[str, Scalar]

    @property
    def looseness(self) -> tuple[float, float, float]:
        """The less, the sooner it is chosen among equally good ones."""
        max_lag, min_lag = self.options.get("max_lag"), self.options.get("min_lag")
        bound = math.inf if max_lag is None else float(max_lag)
        return bound, -float(min_lag or 0), -self.quality


def tightest(choices: Sequence[Choice], tolerance: float) -> Choice:
    """The one with the tightest bounds among those that are as good as the best."""
    least = max(choice.quality for choice in choices) - tolerance
    return min((c for c in choices if c.quality >= least), key=lambda choice: choice.looseness)


@dataclass(frozen=True)
class Curve:
    """Threshold and quality of policies that differ in nothing else, by target (rising)."""

    target: tuple[float, ...]
    threshold: tuple[float, ...]
    quality: tuple[float, ...]
    options: Mapping[str, Scalar]

    def at(self, value: float) -> Choice:
        """What is interpolated there; that of the nearer end outside the range."""
        threshold = np.interp(value, self.target, self.threshold)
        quality = np.interp(value, self.target, self.quality)
        return Choice(value, float(threshold), float(quality), self.options)

    @property
    def knots(self) -> list[Choice]:
        """The points it goes through."""
        return [self.at(value) for value in self.target]


def make_curve(
    points: Sequence[tuple[float, float, float]], options: Mapping[str, Scalar]
) -> Curve:
    """Make target-versus-threshold strictly monotone by isotonic regression.

    Latency is monotone in the threshold in expectation, but measured with noise. Whether it rises
    or falls is read off the points (sign of their covariance). Neighbours in the wrong order, or
    level, are pooled to their mean (pool adjacent violators), threshold and quality with them.

    Args:
        points: (target, threshold, quality) in any order.
        options: those that the points have in common.
    """
    ordered = sorted(points, key=lambda point: point[1])
    rows = np.array(ordered, dtype=np.float64)
    deviation = rows - rows.mean(axis=0)
    if deviation[:, 0] @ deviation[:, 1] < 0:
        rows = rows[::-1]
    blocks: list[tuple[np.ndarray, int]] = []  # (sum of rows, number of rows)
    for row in rows:
        total, count = row, 1
        while blocks and blocks[-1][0][0] / blocks[-1][1] >= total[0] / count:
            earlier, num_earlier = blocks.pop()
            total, count = total + earlier, count + num_earlier
        blocks.append((total, count))
    means = [total / count for total, count in blocks]
    target, threshold, quality = (tuple(map(float, column)) for column in zip(*means, strict=True))
    return Curve(target, threshold, quality, options)


def ranges(curves: Sequence[Curve]) -> str:
    """Name the union of the ranges of the curves: "1.5 to 4.2 and 6 to 8", "640 to 1211"."""
    merged: list[tuple[float, float]] = []
    for low, high in sorted((curve.target[0], curve.target[-1]) for curve in curves):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return " and ".join(f"{_rounded(low)} to {_rounded(high)}" for low, high in merged)


def _rounded(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
