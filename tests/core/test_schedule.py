"""Schedules: hand-made tables, the properties of the random ones, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proactivellm.core import schedule

SHARES = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: tuple(sorted(pair)))


@pytest.mark.parametrize(
    ("k", "num_source", "num_target", "expected"),
    [
        (1, 4, 4, [1, 2, 3, 4]),
        (3, 5, 6, [3, 4, 5, 5, 5, 5]),
        (9, 2, 3, [2, 2, 2]),
        (2, 3, 0, []),
    ],
)
def test_wait_k(k, num_source, num_target, expected):
    assert schedule.wait_k(k, num_source, num_target) == expected


def test_offline_reads_everything_first():
    assert schedule.offline(4, 3) == [4, 4, 4]


@given(
    num_source=st.integers(1, 60),
    num_target=st.integers(0, 60),
    seed=st.integers(0, 2**32 - 1),
    shares=SHARES,
)
def test_multinomial_is_a_schedule(num_source, num_target, seed, shares):
    g = schedule.multinomial(num_source, num_target, np.random.default_rng(seed), shares)
    assert len(g) == num_target
    assert all(type(units) is int for units in g)  # plain ints: they go into JSON logs
    schedule.validate(g, num_source)
    assert not g or g[-1] == num_source  # the whole budget is spent


@given(num_source=st.integers(1, 60), num_target=st.integers(1, 60), seed=st.integers(0, 999))
def test_multinomial_with_everything_first_is_offline(num_source, num_target, seed):
    g = schedule.multinomial(num_source, num_target, np.random.default_rng(seed), (1.0, 1.0))
    assert g == schedule.offline(num_source, num_target)


@settings(deadline=None, max_examples=20)
@given(share=st.floats(0, 1), num_target=st.integers(1, 12), seed=st.integers(0, 999))
def test_multinomial_mean_follows_the_profile(share, num_target, seed):
    num_source, draws = 300, 400
    rng = np.random.default_rng(seed)
    drawn = [
        schedule.multinomial(num_source, num_target, rng, (share, share)) for _ in range(draws)
    ]
    reached = np.minimum(share + (1 - share) * np.arange(1, num_target + 1) / num_target, 1)
    spread = np.sqrt(num_source * reached * (1 - reached) / draws)
    gap = np.abs(np.mean(drawn, axis=0) - num_source * reached)
    # Six standard errors; the last term pays for "at least one unit", which lifts g[t] = 0.
    assert (gap <= 6 * spread + (1 - reached) ** num_source + 1e-9).all()


def test_multinomial_share_is_drawn_anew_for_every_schedule():
    rng = np.random.default_rng(0)
    first = [schedule.multinomial(100, 50, rng)[0] for _ in range(500)]
    # U(0, 1) of 100 units, and 1/50 of the rest: nearly uniform on 1..100.
    assert np.mean(first) == pytest.approx(51, abs=4)
    assert np.percentile(first, [10, 90]) == pytest.approx([11, 91], abs=5)


@pytest.mark.parametrize("shares", [(-0.1, 0.5), (0.6, 0.5), (0.5, 1.1)])
def test_multinomial_shares_are_shares(shares):
    with pytest.raises(ValueError, match="0 <= low <= high <= 1"):
        schedule.multinomial(5, 5, np.random.default_rng(0), shares)


@pytest.mark.parametrize(
    ("g", "message"),
    [
        ([0, 1], r"g\[0\] = 0 is outside 1\.\.3"),
        ([1, 4], r"g\[1\] = 4 is outside 1\.\.3"),
        ([1, 3, 2], "decreases at step 2: 3 -> 2"),
    ],
)
def test_validate_names_the_step(g, message):
    with pytest.raises(ValueError, match=message):
        schedule.validate(g, 3)


def test_expand_repeats_the_entry_of_a_word():
    assert schedule.expand([1, 4, 6], [0, 0, 1, 2, 2, 2]) == [1, 1, 4, 6, 6, 6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedule.wait_k(0, 3, 3), "k >= 1, got 0"),
        (lambda: schedule.offline(0, 3), "at least one source unit, got 0"),
        (lambda: schedule.offline(1, -1), "cannot be negative, got -1"),
        (
            lambda: schedule.multinomial(3, 3, np.random.default_rng(0), (0.6, 0.4)),
            r"low <= high <= 1, got \(0.6, 0.4\)",
        ),
        (lambda: schedule.multinomial(0, 3, np.random.default_rng(0)), "at least one source"),
    ],
)
def test_what_is_no_schedule_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_uniform_cut_offs_are_a_schedule_and_reach_every_unit():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        g = schedule.uniform(5, 4, rng)
        schedule.validate(g, 5)
        seen |= set(g)
    assert seen == {1, 2, 3, 4, 5} and schedule.uniform(5, 0, rng) == []
    with pytest.raises(ValueError, match="at least one source unit"):
        schedule.uniform(0, 3, rng)
