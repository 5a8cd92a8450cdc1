"""The bootstrap: intervals of corpus scores, and of the difference between two systems.

A score is a function of sums of per-instance statistics. A resample is therefore one more sum: how
often each instance was drawn, times its statistics.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 1000
SEED = 12345  # that of sacrebleu
_CELLS_AT_ONCE = 4_000_000  # of the matrix of drawings: 32 MB
TAILS = (2.5, 97.5)  # percentiles around 95% of the resamples

Floats = NDArray[np.float64]
Key = TypeVar("Key")


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of each instance, and a score as a function of their sums."""

    values: Floats  # [instances, columns]
    # Maps sums [..., columns] to scores [...], nan where undefined.
    score: Callable[[Floats], Floats]
    # Whether the columns are those of `mean`: instances without a value do not count.
    is_mean: bool = False

    def corpus(self) -> float | None:
        """The score of all instances, None if it is undefined."""
        score = float(self.score(self.values.sum(axis=0)))
        return None if np.isnan(score) else score

    def num_defined(self) -> int:
        """How many instances count: of a mean, those with a value; else all."""
        return int(np.count_nonzero(self.values[:, 1])) if self.is_mean else len(self.values)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two systems differ in one metric, on the instances where both have a value."""

    first: float
    second: float
    difference: float  # second minus first
    low: float  # of the 95% interval of the difference
    high: float
    p: float  # two-sided, of the hypothesis that they do not differ
    num_instances: int  # where both have a value


def mean(values: Sequence[float | None]) -> Statistics:
    """Statistics of a mean over the instances with a value: the sum of the values, their number."""
    column = np.array(values, np.float64)  # None becomes nan
    defined = ~np.isnan(column)
    columns = np.stack([np.where(defined, column, 0.0), defined], axis=1)
    return Statistics(columns, ratio, is_mean=True)


def ratio(sums: Floats) -> Floats:
    """The first of two columns over the second: [..., 2] -> [...], nan where the second is 0."""
    numerator, denominator = sums[..., 0], sums[..., 1]
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)


def intervals(statistics: Mapping[str, Statistics], num_resamples: int) -> dict[str, float]:
    """Half the width of the 95% percentile interval of each score (Efron 1979).

    All statistics are of the same instances, and share the same resamples; those where a score is
    undefined do not count for it. With 0 resamples, or of fewer than two instances, there is no
    interval: every resample of one instance is the same.
    """
    if not num_resamples or _num_instances(statistics) < 2:
        return {}
    several = {name: each for name, each in statistics.items() if each.num_defined() > 1}
    result = {}
    for name, drawn in resample(several, num_resamples).items():
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn):
            low, high = np.percentile(drawn, TAILS)
            result[name] = float(high - low) / 2
    return result


def summarise(statistics: Mapping[str, Statistics], num_resamples: int) -> dict[str, Any]:
    """Scores with their intervals, flat and ready for JSON; 0 resamples give no intervals.

    Each score under its name, None if undefined; `X_ci` beside X where it has an interval, and then
    `num_bootstrap`; `num_undefined`: how many instances each mean leaves out, if any.
    """
    widths = intervals(statistics, num_resamples)
    scores: dict[str, Any] = {}
    undefined = {}
    for name, each in statistics.items():
        scores[name] = each.corpus()
        if name in widths:
            scores[f"{name}_ci"] = widths[name]
        if missing := len(each.values) - each.num_defined():
            undefined[name] = missing
    if widths:
        scores["num_bootstrap"] = num_resamples
    return scores | {"num_undefined": undefined}


def differences(
    first: Mapping[str, Statistics],
    second: Mapping[str, Statistics],
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Difference]:
    """Paired bootstrap (Koehn 2004) of every metric that both systems have, as `first` orders them.

    Both are scored on the same resamples of the instances, which must be the same in the same
    order. A metric without an instance where both have a value is left out. It holds for any
    function of sums, a mean lag as well as BLEU.

    Raises:
        ValueError: fewer than two instances, which cannot be resampled, or fewer than 100
            resamples, too few for the ends of the interval.
    """
    pairs = {
        name: pair
        for name in first
        if name in second and (pair := _on_common_instances(first[name], second[name]))
    }
    if _num_instances(first) < 2:
        raise ValueError("a comparison needs two instances at least: the logs have fewer")
    if num_resamples < 100:
        raise ValueError(
            f"{num_resamples} resamples are too few for a comparison: give 100 or more"
        )
    joined = {(name, side): pair[side] for name, pair in pairs.items() for side in (0, 1)}
    drawn = resample(joined, num_resamples)
    return {
        name: _difference(pair, drawn[name, 1] - drawn[name, 0]) for name, pair in pairs.items()
    }


def resample(
    statistics: Mapping[Key, Statistics], num_resamples: int, seed: int = SEED
) -> dict[Key, Floats]:
    """Scores of resamples of the instances, [num_resamples] each, nan where undefined.

    All statistics are of the same instances and see the same resamples.
    """
    if not statistics:
        return {}
    # All metrics side by side, so that one product per part of the drawings sums them all.
    matrix = np.concatenate([each.values for each in statistics.values()], axis=1)
    sums = np.concatenate([c @ matrix for c in _drawings(len(matrix), num_resamples, seed)])
    ends = np.cumsum([each.values.shape[1] for each in statistics.values()])
    parts = np.split(sums, ends[:-1], axis=1)
    return {
        key: each.score(part) for (key, each), part in zip(statistics.items(), parts, strict=True)
    }


def _drawings(num_instances: int, num_resamples: int, seed: int) -> Iterator[Floats]:
    """How often each instance is drawn: [resamples, instances], some resamples at a time."""
    random = np.random.default_rng(seed)
    # Not all at once: for a large log that would be gigabytes of counts.
    at_once = max(1, _CELLS_AT_ONCE // num_instances)
    for begin in range(0, num_resamples, at_once):
        counts = np.empty((min(at_once, num_resamples - begin), num_instances))
        for row in counts:
            drawn = random.integers(num_instances, size=num_instances, dtype=np.int32)
            row[:] = np.bincount(drawn, minlength=num_instances)
        yield counts


def _on_common_instances(
    first: Statistics, second: Statistics
) -> tuple[Statistics, Statistics] | None:
    """Both, without the instances where one is undefined; None if none are left."""
    if not first.is_mean:
        return first, second
    common = (first.values[:, 1] > 0) & (second.values[:, 1] > 0)
    if not common.any():
        return None
    # Rows of zeros rather than fewer rows: all metrics must share the drawings of `resample`.
    kept = common[:, None]
    return replace(first, values=first.values * kept), replace(second, values=second.values * kept)


def _difference(pair: tuple[Statistics, Statistics], drawn: Floats) -> Difference:
    first, second = (float(each.score(each.values.sum(axis=0))) for each in pair)
    drawn = drawn[~np.isnan(drawn)]
    difference = second - first
    low, high = np.percentile(drawn, TAILS)
    # Two-sided p by the shift method, `(1 + #{|d*_b - d| >= |d|}) / (1 + B)` (Noreen 1989, Riezler
    # and Maxwell 2005): the share of resamples whose difference lies at least as far from the
    # measured one as that lies from 0, the measured one counted in. Koehn reports the share on the
    # other side of 0 instead, which is one-sided and may be 0. A resample that gives the same
    # difference but for rounding does not lie nearer.
    far = np.abs(drawn - difference) >= abs(difference) - 1e-9
    return Difference(
        first=first,
        second=second,
        difference=difference,
        low=float(low),
        high=float(high),
        p=float(1 + far.sum()) / (1 + len(drawn)),
        num_instances=pair[0].num_defined(),
    )


def _num_instances(statistics: Mapping[str, Statistics]) -> int:
    return next((len(each.values) for each in statistics.values()), 0)
