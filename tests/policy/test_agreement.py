"""commit(): how much of the newest draft is written."""

import pytest

from proactivellm.policy.agreement import HoldN, LocalAgreement


@pytest.mark.parametrize(
    ("drafts", "committed"),
    [
        ([], 0),
        ([[5, 6]], 0),  # too few hypotheses
        ([[5, 6, 7], [5, 6, 8]], 2),
        ([[5, 6, 7], [9, 6, 7]], 0),
        ([[5, 6, 7], [5, 6, 7]], 3),
        ([[5, 6], [5, 6, 7]], 2),  # the older one is a prefix: its last token counts
        ([[5, 6, 7], [5, 6]], 2),  # the newer one is a prefix
        ([[], [5, 6]], 0),
        ([[5, 6], []], 0),
        ([[5, 6, 7], [5, 8, 7]], 1),  # agreement after a disagreement does not count
        ([[9, 9, 9], [5, 6, 7], [5, 6, 8]], 2),  # only the last two matter
    ],
)
def test_local_agreement_of_two(drafts, committed):
    assert LocalAgreement(n=2).commit(drafts) == committed


def test_local_agreement_of_three():
    policy = LocalAgreement(n=3)
    assert policy.commit([[5, 6], [5, 6]]) == 0
    assert policy.commit([[5, 6, 7], [5, 6, 8], [5, 6, 7]]) == 2
    assert policy.commit([[5, 9, 7], [5, 6, 7], [5, 6, 7]]) == 1


@pytest.mark.parametrize(
    ("n", "drafts", "committed"),
    [
        (2, [], 0),
        (2, [[5]], 0),
        (2, [[5, 6]], 0),
        (2, [[5, 6, 7]], 1),
        (0, [[5, 6, 7]], 3),
        (1, [[5], [5, 6, 7]], 2),  # the newest counts
    ],
)
def test_hold_n(n, drafts, committed):
    assert HoldN(n=n).commit(drafts) == committed


def test_history_and_lookahead():
    agreement, hold = LocalAgreement(n=3), HoldN(n=3, draft=5)
    assert (agreement.history, agreement.lookahead) == (3, 12)
    assert (hold.history, hold.lookahead) == (1, 5)
    assert (hold.every, HoldN(n=1, every=4).every) == (1, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalAgreement(n=1), "n of local-agreement must be at least 2, got 1"),
        (lambda: HoldN(n=-1), "n of hold-n must be at least 0, got -1"),
        (lambda: HoldN(n=4, draft=4), "draft=4 must be above n=4"),
        (lambda: LocalAgreement(n=2, draft=0), "draft must be at least 1, got 0"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
