"""Curves compared seed by seed, against what the single curves say."""

import numpy as np
import pytest
from tests.metrics.test_curves import curve

from proactivellm.metrics.seeds import Pair, seed_gap


def at(latency: float) -> np.ndarray:
    return np.full(101, latency)


def test_one_seed_has_the_gap_between_its_curves():
    better, worse = curve((6, 1), (8, 3)), curve((8, 5), (4, 1))
    pair = Pair(better, worse)
    assert seed_gap([pair], [at(4.0)]) is None  # beyond the last point of the first curve
    (found,) = [seed_gap([pair], [at(1.0)])]
    expected = better.quality[0, 0] - worse.quality[0, 0]
    assert found.mean.gap == pytest.approx(expected) and expected > 1
    assert (found.mean.low, found.mean.high) == pytest.approx((expected, expected))  # all alike
    assert found.gaps == pytest.approx([expected]) and not found.shares


def test_seeds_are_paired_and_averaged():
    worse, ceiling = curve((3, 1), (5, 3)), curve((8, 1), (8, 3))
    seeds = [curve((4, 1), (6, 3)), curve((5, 1), (7, 3))]
    pairs = [Pair(seeds[0], worse, ceiling), Pair(seeds[1], curve((4, 1), (6, 3)), ceiling)]
    found = seed_gap(pairs, [at(1.0), at(2.0)])
    qualities = [float(first.at(at(x))[0]) for first, x in zip(seeds, (1, 2), strict=True)]
    others = [float(p.second.at(at(x))[0]) for p, x in zip(pairs, (1, 2), strict=True)]
    assert found.mean.latency == 1.5
    assert found.mean.quality == pytest.approx(np.mean(qualities))
    assert found.gaps == pytest.approx(np.subtract(qualities, others))
    assert found.mean.gap == pytest.approx(np.mean(found.gaps))
    top = float(ceiling.at(at(1.0))[0])
    assert found.shares == pytest.approx(found.gaps / (top - np.array(others)))
    assert seed_gap(pairs, [at(1.0), at(4.0)]) is None  # out of reach of one seed is of all


def test_a_ceiling_out_of_reach_leaves_the_gap():
    pairs = [Pair(curve((6, 1), (8, 3)), curve((4, 1), (8, 5)), curve((8, 2), (8, 3)))]
    found = seed_gap(pairs, [at(1.0)])
    assert found.gaps and not found.shares
