"""Policies against a family and a ceiling at equal latency, against values worked out by hand."""

import pytest
from tests.metrics.test_curves import log

from proactivellm.metrics.curves import make_curve
from proactivellm.metrics.standing import AT_EQUAL, standings

# Lag 1 and 3 of wait-k have 4 and 8 words right: 6 lies half-way in between, at lag 2.
LOGS = {
    "wait-k:1": log(4, 1),
    "wait-k:3": log(8, 3),
    "entropy:1": log(7, 2),
    "sentence-wait-k:2": log(5, 2),
    "oracle:0.3": log(8, 1),
    "oracle:0.3,min_lag=3": log(8, 3),
    "offline": log(8, 8),
}


def bleu(right: int) -> float:
    return float(make_curve([log(right, 1)], "BLEU", num_resamples=100).quality[0, 0])


def test_gaps_and_shares_at_equal_latency():
    found = standings(LOGS, "wait-k", "oracle", num_resamples=100)
    assert found.quality == "BLEU" and [row.policy for row in found.rows] == [*LOGS]
    by_policy = {row.policy: row for row in found.rows}
    between = (bleu(4) + bleu(8)) / 2
    for latency in ("LAAL", "DAL"):
        gap = by_policy["entropy:1"].gaps[latency]
        assert gap is not None
        assert gap.latency == pytest.approx(2.0)
        assert gap.gap == pytest.approx(bleu(7) - between)
        assert (gap.low, gap.high) == pytest.approx((gap.gap, gap.gap))  # all instances alike
        share = by_policy["entropy:1"].shares[latency]
        assert share == pytest.approx((bleu(7) - between) / (bleu(8) - between))
        restarted = by_policy["sentence-wait-k:2"].gaps[latency]
        assert restarted is not None and restarted.gap == pytest.approx(bleu(5) - between)
    for latency in AT_EQUAL[:1]:
        assert by_policy["wait-k:1"].gaps[latency].gap == pytest.approx(0.0)
        assert by_policy["wait-k:1"].shares[latency] == pytest.approx(0.0)
        assert by_policy["oracle:0.3"].shares[latency] == pytest.approx(1.0)
        # Beyond the last point of the baseline nothing can be said.
        assert by_policy["offline"].gaps[latency] is None
        assert by_policy["offline"].shares[latency] is None


def test_without_a_ceiling_there_are_no_shares():
    found = standings(LOGS, "wait-k", num_resamples=100)
    assert {share for row in found.rows for share in row.shares.values()} == {None}


def test_the_families_have_to_be_there():
    with pytest.raises(ValueError, match="no policy of the family 'learned', but of wait-k, entr"):
        standings(LOGS, "wait-k", "learned", num_resamples=100)
