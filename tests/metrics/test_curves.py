"""Quality at equal latency, against values worked out by hand."""

import numpy as np
import pytest

from proactivellm.metrics.curves import make_curve, point_gaps
from proactivellm.output.log import Instance

WORDS = "a b c d e f g h".split()


def instance(index: int, right: int, lag: int) -> Instance:
    """Eight words, the first `right` of them right, each written `lag` units behind."""
    prediction = " ".join(WORDS[:right] + ["x"] * (8 - right))
    return Instance(
        index=index,
        source=" ".join(WORDS),
        source_length=8,
        prediction=prediction,
        prediction_length=8,
        reference=" ".join(WORDS),
        delays=[min(lag + i, 8) for i in range(8)],
        elapsed=[0.0] * 8,
        token_delays=[8] * 8,
        policy="wait-k:1",
        forwards=None,
        tokens=None,
    )


def log(right: int, lag: int) -> list[Instance]:
    return [instance(index, right, lag) for index in range(5)]


def curve(*points: tuple[int, int]):
    return make_curve([log(right, lag) for right, lag in points], "chrF", num_resamples=100)


def test_a_curve_is_interpolated_between_its_points():
    both, low, high = curve((4, 1), (8, 3)), curve((4, 1)), curve((8, 3))
    assert both.span() == (1.0, 3.0)
    middle = float(both.at(np.full(101, 2.0))[0])
    assert middle == pytest.approx((low.quality[0, 0] + high.quality[0, 0]) / 2)


def test_a_policy_is_compared_at_its_own_latency():
    (gap, beyond) = point_gaps(curve((6, 2), (8, 7)), curve((4, 1), (8, 3)))
    assert beyond is None
    assert gap is not None and gap.latency == pytest.approx(2.0)


def test_intervals_widen_with_the_spread_of_the_instances():
    mixed = [instance(i, right, 2) for i, right in enumerate((2, 8, 2, 8, 2, 8))]
    same = [instance(i, 4, 2) for i in range(6)]
    (gap,) = point_gaps(
        make_curve([mixed], "chrF", num_resamples=200),
        make_curve([same], "chrF", num_resamples=200),
    )
    assert gap is not None and gap.low < gap.gap < gap.high and gap.interval > 1


def test_curves_need_the_same_sources_and_both_scores():
    with pytest.raises(ValueError, match="same sources"):
        make_curve([log(4, 1), log(4, 1)[:3]])
    with pytest.raises(ValueError, match="no policy of the curve has both BLEU and LAAL_CA_ms"):
        make_curve([log(4, 1)], latency="LAAL_CA_ms")
