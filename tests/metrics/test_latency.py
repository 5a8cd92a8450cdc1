"""Latency metrics against numbers worked out by hand, and against known wait-k values."""

import json
from pathlib import Path

import pytest

from proactivellm.core.schedule import wait_k
from proactivellm.metrics.latency import (
    average_information_lag,
    average_lagging,
    average_proportion,
    degeneracy,
    differentiable_average_lagging,
    length_adaptive_average_lagging,
    read_coverage,
    yaal,
)

LENGTHS = json.loads((Path(__file__).parent / "multi30k_lengths.json").read_text())

# wait-2, |X| = 4, |Y| = 4, |Y*| = 4: the pace is one source word per target word.
WAIT_2 = [2, 3, 4, 4]
# |X| = 6, |Y| = 4, |Y*| = 3 (too much is written): AL counts on 2 source words per target word,
# LAAL on 6/4 = 1.5.
LONG = [2, 3, 4, 6]


def test_average_proportion() -> None:
    # (2 + 3 + 4 + 4) / (4 * 4) = 13/16
    assert average_proportion(WAIT_2, 4, 4) == pytest.approx(13 / 16)
    # (2 + 3 + 4 + 6) / (6 * 3) = 15/18; against its own length 15/24
    assert average_proportion(LONG, 6, 3) == pytest.approx(15 / 18)
    assert average_proportion(LONG, 6) == pytest.approx(15 / 24)
    # More is written than is wanted: (4 + 4 + 4) / (4 * 2) > 1
    assert average_proportion([4, 4, 4], 4, 2) == pytest.approx(1.5)


def test_average_lagging() -> None:
    # tau = 3, the first word with d = |X|: (2-0) + (3-1) + (4-2) = 6; 6/3 = 2 = k
    assert average_lagging(WAIT_2, 4, 4) == pytest.approx(2.0)
    # tau = 4: (2-0) + (3-2) + (4-4) + (6-6) = 3; 3/4
    assert average_lagging(LONG, 6, 3) == pytest.approx(0.75)
    # Never at the end of the source, tau = |Y| = 2, pace 4/4: (1-0) + (2-1) = 2; 2/2
    assert average_lagging([1, 2], 4, 4) == pytest.approx(1.0)
    # Offline: only the first word counts
    assert average_lagging([5, 5, 5, 5], 5, 7) == pytest.approx(5.0)


def test_length_adaptive_average_lagging_differs_when_too_much_is_written() -> None:
    # tau = 4, pace 6/max(4, 3) = 1.5: 2 + (3-1.5) + (4-3) + (6-4.5) = 6; 6/4, twice the AL
    assert length_adaptive_average_lagging(LONG, 6, 3) == pytest.approx(1.5)
    assert average_lagging(LONG, 6, 3) == pytest.approx(0.75)
    # Too little is written (|Y| = 4 < |Y*| = 6): pace 1 in both: 2 + 2 + 2 + 3 = 9; 9/4
    assert length_adaptive_average_lagging(LONG, 6, 6) == pytest.approx(2.25)
    assert average_lagging(LONG, 6, 6) == pytest.approx(2.25)
    # Without a reference the prediction's own length
    assert length_adaptive_average_lagging(LONG, 6) == pytest.approx(1.5)


def test_a_first_word_after_the_end_is_its_own_lag() -> None:
    # A clock that counts computing: |X| = 1000 ms, the first word after 1300 ms.
    assert average_lagging([1300.0, 1350.0], 1000.0, 2) == 1300.0
    assert length_adaptive_average_lagging([1300.0, 1350.0], 1000.0, 2) == 1300.0
    assert average_lagging([1000.0, 1350.0], 1000.0, 2) == 1000.0
    # No such case in DAL: d' = 1300, max(1350, 1300 + 500) = 1800: (1300 + 1800 - 500) / 2
    assert differentiable_average_lagging([1300.0, 1350.0], 1000.0) == pytest.approx(1300.0)


def test_differentiable_average_lagging() -> None:
    # pace 1: d' = 2, 3, 4, max(4, 5) = 5: (2-0) + (3-1) + (4-2) + (5-3) = 8; 8/4 = 2 = k
    assert differentiable_average_lagging(WAIT_2, 4) == pytest.approx(2.0)
    # pace 6/4 = 1.5: d' = 2, 3.5, 5, 6.5: minus 0, 1.5, 3, 4.5 leaves 2 each
    assert differentiable_average_lagging(LONG, 6) == pytest.approx(2.0)
    # pace 4/2 = 2: d' = 1, max(4, 3) = 4: (1 + 4 - 2) / 2 = 1.5
    assert differentiable_average_lagging([1, 4], 4) == pytest.approx(1.5)


def test_yaal_leaves_out_the_words_after_the_end() -> None:
    # Words with d < 4 are the first two: (2-0) + (3-1) = 4; 4/2 = 2
    assert yaal(WAIT_2, 4, 4) == pytest.approx(2.0)
    # d < 6 are three, pace 6/max(4, 3) = 1.5: 2 + 1.5 + 1 = 4.5; 4.5/3. LAAL has 6/4 here too.
    assert yaal(LONG, 6, 3) == pytest.approx(1.5)
    # Where they differ: |X| = 6, |Y| = 3, pace 2. YAAL: d_1 = 1 alone; LAAL: (1 + (6-2)) / 2 = 2.5
    assert yaal([1, 6, 6], 6, 3) == pytest.approx(1.0)
    assert length_adaptive_average_lagging([1, 6, 6], 6, 3) == pytest.approx(2.5)


def test_yaal_of_a_segment_counts_words_until_the_recording_ends() -> None:
    # |X| = 6, pace 2: 1 + (7 - 2) = 6; 6/2. The word at 9, the end, is left out.
    assert yaal([1, 7, 9], 6, 3, 9) == pytest.approx(3.0)
    assert yaal([7.5, 8.0], 6, 3, 9) == pytest.approx((7.5 + 6.0) / 2)  # after the segment alone
    assert yaal([-1.0, 1.0], 6, 2, 9) == pytest.approx((-1.0 - 2.0) / 2)  # before it, too
    assert yaal([9, 9], 6, 3, 9) is None


def test_yaal_is_undefined_offline() -> None:
    assert yaal([4, 4, 4], 4, 3) is None
    assert yaal([5, 6], 4, 3) is None


def test_read_coverage() -> None:
    # g = 1, 2, 4, 4 of M = 4: 11/16; offline 1
    assert read_coverage([1, 2, 4, 4], 4) == pytest.approx(11 / 16)
    assert read_coverage([4, 4, 4], 4) == pytest.approx(1.0)


def test_average_information_lag() -> None:
    # M/N = 6/4 = 1.5, even spread 1.5, 3, 4.5, 6: g = 2, 3, 4, 6 leaves 0.5 + 0 - 0.5 + 0
    assert average_information_lag([2, 3, 4, 6], 6) == pytest.approx(0.0)
    # wait-1 with M = N stays on the even spread
    assert average_information_lag([1, 2, 3, 4], 4) == pytest.approx(0.0)
    # Offline, M = N = 4: 3 + 2 + 1 + 0 = 6; 6/4
    assert average_information_lag([4, 4, 4, 4], 4) == pytest.approx(1.5)
    # Everything written at once after one unit: 1-2, 1-4, M = 4, N = 2: (-1 - 3) / 2
    assert average_information_lag([1, 1], 4) == pytest.approx(-2.0)


def test_nothing_written_is_undefined_not_an_error() -> None:
    for metric in (average_proportion, average_lagging, length_adaptive_average_lagging, yaal):
        assert metric([], 5, 4) is None
        assert metric([], 5) is None
    assert differentiable_average_lagging([], 5) is None
    assert read_coverage([], 5) is None
    assert average_information_lag([], 5) is None


def test_an_empty_source_or_reference_is_undefined_not_an_error() -> None:
    assert average_lagging([0, 0], 0, 2) is None
    assert length_adaptive_average_lagging([0, 0], 0, 2) is None
    assert average_proportion([0], 0, 2) is None
    assert differentiable_average_lagging([0], 0) is None
    assert yaal([0], 0, 2) is None
    assert read_coverage([0], 0) is None
    assert average_information_lag([0], 0) is None
    # An empty reference leaves AL and AP without a pace; LAAL and YAAL take the prediction's.
    assert average_lagging([1, 2], 4, 0) is None
    assert average_proportion([1, 2], 4, 0) is None
    # pace 2: (1 + (2-2)) / 2
    assert length_adaptive_average_lagging([1, 2], 4, 0) == pytest.approx(0.5)
    assert yaal([1, 2], 4, 0) == pytest.approx(0.5)


def test_one_early_word_does_not_hide_late_output() -> None:
    # |X| = 10, |Y| = 10: one word after 1, the rest after the end. SWF = 100 * 1/10; YAAL = 1, so
    # EFSW = 100 * (10 - 1)/10 = 90: 80 points apart.
    found = degeneracy([([1] + [10] * 9, 10, 10)])
    assert found is not None
    assert found.swf == pytest.approx(10.0)
    assert found.efsw == pytest.approx(90.0)
    assert found.degenerate


def test_an_honest_policy_is_not_degenerate() -> None:
    # wait-1, |X| = |Y| = 10: SWF = 90 (the last word comes with the end), YAAL = 1: EFSW = 90.
    # The second instance is offline: its words count in SWF (9/20), its source not in EFSW.
    found = degeneracy([(wait_k(1, 10, 10), 10, 10)])
    assert found is not None and found.swf == pytest.approx(90.0)
    assert found.efsw == pytest.approx(90.0) and not found.degenerate
    both = degeneracy([(wait_k(1, 10, 10), 10, 10), ([10] * 10, 10, 10)])
    assert both is not None and both.swf == pytest.approx(45.0)
    assert both.efsw == pytest.approx(90.0) and both.degenerate


def test_degeneracy_offline_and_of_nothing() -> None:
    offline = degeneracy([([3, 3], 3, 2)])
    assert offline is not None
    assert (offline.swf, offline.efsw, offline.degenerate) == (0.0, None, False)
    assert degeneracy([([], 3, 2)]) is None


# Multi30k test_2016_flickr, English to German, wait-k with |Y| = |Y*|, in words (computed with an
# independent implementation): k, AL = LAAL, AP, DAL, YAAL.
WAIT_K = [
    (1, 0.55, 0.50, 1.12, 0.54),
    (2, 1.54, 0.59, 2.12, 1.54),
    (3, 2.54, 0.67, 3.11, 2.56),
    (5, 4.60, 0.80, 5.09, 4.65),
    (7, 6.67, 0.89, 7.03, 6.73),
    (9, 8.51, 0.95, 8.75, 8.78),
]
UNDEFINED = {7: 86, 9: 281}  # sentences without YAAL, from the same source


@pytest.mark.parametrize(("k", "al", "ap", "dal", "yaal_value"), WAIT_K)
def test_wait_k_on_multi30k(k: int, al: float, ap: float, dal: float, yaal_value: float) -> None:
    paths = [(wait_k(k, m, n), m, n) for m, n in zip(LENGTHS["en"], LENGTHS["de"], strict=True)]
    assert len(paths) == 1000

    def mean(values: list[float | None]) -> float:
        defined = [value for value in values if value is not None]
        return sum(defined) / len(defined)

    half = 0.00501  # the values are rounded to two decimals
    assert mean([average_lagging(*path) for path in paths]) == pytest.approx(al, abs=half)
    assert mean([length_adaptive_average_lagging(*path) for path in paths]) == pytest.approx(
        al, abs=half
    )
    assert mean([average_proportion(*path) for path in paths]) == pytest.approx(ap, abs=half)
    assert mean(
        [differentiable_average_lagging(delays, m) for delays, m, _ in paths]
    ) == pytest.approx(dal, abs=half)
    lags = [yaal(*path) for path in paths]
    assert mean(lags) == pytest.approx(yaal_value, abs=half)
    # It has no value where the first word comes with the end of the source.
    assert lags.count(None) == sum(m <= k for _, m, _ in paths)
    assert lags.count(None) == UNDEFINED.get(k, lags.count(None))


def test_wait_k_in_general() -> None:
    # With |X| = |Y| = n and k <= n, each of the n - k + 1 words of AL lags by k, each of DAL too.
    for n in range(1, 12):
        for k in range(1, n + 1):
            delays = wait_k(k, n, n)
            assert average_lagging(delays, n, n) == pytest.approx(k)
            assert differentiable_average_lagging(delays, n) == pytest.approx(k)
