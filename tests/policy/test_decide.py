"""decide(): truth tables over several lanes in mixed states, and the counters behind them."""

import pytest
import torch

from proactivellm.policy.agreement import HoldN, LocalAgreement
from proactivellm.policy.attention import AlignAtt, Attention, Combined, Concentration
from proactivellm.policy.base import WHOLE_SOURCE, Observation, Policy
from proactivellm.policy.endogenous import Confidence, Entropy
from proactivellm.policy.fixed import Fixed, Offline, WaitK

NUM_SOURCE, NUM_TARGET = 5, 9


def observe(lanes: list[tuple[int, int, bool]], **statistics: list) -> Observation:
    """Lanes are (units read, words written, source finished)."""
    units, words, finished = zip(*lanes, strict=True)
    return Observation(
        units_read_B=torch.tensor(units),
        words_written_B=torch.tensor(words),
        source_finished_B=torch.tensor(finished),
        **{name: torch.tensor(values) for name, values in statistics.items()},
    )


def simulate(policy: Policy) -> list[int]:
    """Run a source of NUM_SOURCE units: the units read before each of NUM_TARGET words."""
    units, delays = 0, []
    while len(delays) < NUM_TARGET:
        lane = (units, len(delays), units == NUM_SOURCE)
        if policy.decide(observe([lane], entropy_B=[9.0])).item():
            delays.append(units)
        else:
            units += 1
    return delays


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_wait_k_schedule(k):
    expected = [min(k + t, NUM_SOURCE) for t in range(NUM_TARGET)]
    assert simulate(WaitK(k=k)) == expected


@pytest.mark.parametrize(
    ("k", "stride", "schedule"),
    [
        (2, 2, [2, 4, 6, 8, 10]),
        (6, 2, [6, 8, 10, 12, 14]),  # wait-3, each decision after 2 units
        (2, 1.5, [2, 4, 5, 7, 8]),  # 2, 3.5, 5, 6.5, 8: rounded up
        (1, 0.5, [1, 2, 2, 3, 3]),  # units of several words
    ],
)
def test_wait_k_with_a_stride(k, stride, schedule):
    policy = WaitK(k=k, stride=stride)
    assert [policy.required_units(words) for words in range(5)] == schedule
    whole = [min(units, NUM_SOURCE) for units in schedule]
    assert simulate(policy)[:5] == whole
    # The same with bounds around a rule that never passes, and one that always does.
    assert simulate(Entropy(threshold=1.0, max_lag=k, stride=stride))[:5] == whole
    assert simulate(Entropy(threshold=10.0, min_lag=k, stride=stride))[:5] == whole


def test_a_stride_is_exact():
    words_B = torch.arange(5001)
    for stride, units, words in [(1.1, 11, 10), (2.3, 23, 10), (0.1, 1, 10), (1 / 3, 1, 3)]:
        policy = WaitK(k=1, stride=stride)
        expected = [-(-number * units // words) for number in range(5001)]
        assert policy.pace_B(words_B).tolist() == expected
        assert [policy.pace(number) for number in range(5001)] == expected


def test_a_stride_of_one_changes_nothing():
    words_B = torch.tensor([0, 3, 1])
    assert WaitK(k=3).pace_B(words_B) is words_B
    assert WaitK(k=3, stride=1) == WaitK(k=3) and hash(WaitK(k=3, stride=1)) == hash(WaitK(k=3))


def test_offline_schedule():
    assert simulate(Offline()) == [NUM_SOURCE] * NUM_TARGET


def test_fixed_schedule_then_whole_source():
    assert simulate(Fixed(trace=(1, 1, 3, 4))) == [1, 1, 3, 4, 5, 5, 5, 5, 5]


def test_uncertain_policy_follows_its_bounds():
    # Entropy 9 never passes, so only max_lag writes: the schedule of wait-3.
    assert simulate(Entropy(threshold=1.0, min_lag=1, max_lag=3)) == simulate(WaitK(k=3))
    assert simulate(Entropy(threshold=1.0)) == simulate(Offline())
    # Entropy 9 always passes, so only min_lag holds back: the schedule of wait-2.
    assert simulate(Entropy(threshold=10.0, min_lag=2, max_lag=4)) == simulate(WaitK(k=2))


def test_min_lag_zero_and_below_still_needs_one_unit():
    policy = Entropy(threshold=10.0, min_lag=-2)
    assert [policy.required_units(words) for words in range(6)] == [1, 1, 1, 1, 2, 3]
    assert simulate(policy) == [1, 1, 1, 1, 2, 3, 4, 5, 5]


def test_wait_k_lanes():
    lanes = [(2, 0, False), (3, 0, False), (3, 1, False), (4, 1, False), (1, 7, True)]
    assert WaitK(k=3).decide(observe(lanes)).tolist() == [False, True, False, True, True]


def test_offline_lanes():
    lanes = [(9, 0, False), (1, 0, True), (2, 8, False)]
    assert Offline().decide(observe(lanes)).tolist() == [False, True, False]


def test_fixed_lanes():
    lanes = [(1, 0, False), (1, 1, False), (2, 1, False), (99, 3, False), (2, 3, True)]
    decided = Fixed(trace=(1, 2, 4)).decide(observe(lanes))
    assert decided.tolist() == [True, False, True, False, True]


BOUNDED_LANES = [
    (1, 0, False),  # below min_lag = 2, however certain
    (2, 0, False),  # inside the bounds, certain
    (2, 0, False),  # inside the bounds, uncertain
    (4, 0, False),  # at max_lag = 4, uncertain
    (4, 1, False),  # one below max_lag, uncertain
    (5, 1, False),  # at max_lag for the second word, uncertain
    (1, 6, True),  # finished, uncertain and below min_lag
    (0, 0, True),  # finished and empty
]
EXPECTED = [False, True, False, True, False, True, True, True]


def test_entropy_lanes():
    entropy_B = [0.1, 0.9, 1.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    policy = Entropy(threshold=1.0, min_lag=2, max_lag=4)
    assert policy.decide(observe(BOUNDED_LANES, entropy_B=entropy_B)).tolist() == EXPECTED


def test_confidence_lanes():
    max_prob_B = [0.99, 0.51, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1]
    policy = Confidence(threshold=0.5, min_lag=2, max_lag=4)
    assert policy.decide(observe(BOUNDED_LANES, max_prob_B=max_prob_B)).tolist() == EXPECTED


def test_attention_lanes_of_different_lengths():
    lanes = [(2, 0, False), (2, 0, False), (4, 0, False), (4, 0, False), (1, 0, False)]
    attention_BU = [
        [0.8, 0.2, 0.0, 0.0],  # newest unit has 0.2
        [0.2, 0.8, 0.0, 0.0],  # 0.8
        [0.1, 0.2, 0.4, 0.3],  # 0.3
        [0.1, 0.1, 0.1, 0.7],  # 0.7
        [1.0, 0.0, 0.0, 0.0],  # nothing but the newest
    ]
    observation = observe(lanes, attention_BU=attention_BU)
    decided = Attention(threshold=0.5).decide(observation)
    assert decided.tolist() == [True, False, True, False, False]
    # Frontier 2: lanes of two units have nothing older; the others have 0.7 and 0.8.
    decided = Attention(threshold=0.75, frontier=2).decide(observation)
    assert decided.tolist() == [False, False, True, False, False]
    decided = Attention(threshold=0.5, max_lag=1).decide(observation)
    assert decided.tolist() == [True] * 5


def test_attention_threshold_one_is_immune_to_rounding():
    observation = observe([(1, 0, False)], attention_BU=[[0.9999999]])
    assert Attention(threshold=1.0).decide(observation).tolist() == [False]


def test_alignatt_looks_at_the_most_attended_unit():
    lanes = [(3, 0, False), (3, 0, False), (3, 0, False), (1, 0, False), (3, 9, True)]
    attention_BU = [[0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0], [0, 0, 1]]
    observation = observe(lanes, attention_BU=attention_BU)
    assert AlignAtt(frontier=1).decide(observation).tolist() == [True, True, False, False, True]
    assert AlignAtt(frontier=2).decide(observation).tolist() == [True, False, False, False, True]


def test_concentration_needs_one_unit_to_stand_out_among_several():
    lanes = [(3, 0, False), (3, 0, False), (1, 0, False)]
    attention_BU = [[0.1, 0.2, 0.7], [0.3, 0.4, 0.3], [1.0, 0.0, 0.0]]
    observation = observe(lanes, attention_BU=attention_BU)
    assert Concentration(threshold=0.6).decide(observation).tolist() == [True, False, False]


def test_combined_wants_certainty_and_evidence_that_is_not_the_newest():
    lanes = [(2, 0, False), (2, 0, False), (2, 0, False), (1, 0, False)]
    attention_BU = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [1.0, 0.0]]
    observation = observe(lanes, attention_BU=attention_BU, max_prob_B=[0.9, 0.4, 0.9, 0.9])
    assert Combined(threshold=0.5).decide(observation).tolist() == [True, False, False, False]


def test_undefined_statistic_reads():
    observation = observe([(3, 0, False), (3, 0, True)], entropy_B=[float("nan")] * 2)
    assert Entropy(threshold=1.0).decide(observation).tolist() == [False, True]


@pytest.mark.parametrize("policy", [LocalAgreement(n=2, min_lag=2), HoldN(n=2, min_lag=2)])
def test_draft_policies_decide_by_bounds(policy):
    lanes = [(1, 0, False), (2, 0, False), (2, 1, False), (1, 5, True)]
    assert policy.decide(observe(lanes)).tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("policy", "statistic"),
    [
        (Entropy(threshold=1.0), "entropy"),
        (Confidence(threshold=0.5), "confidence"),
        (Attention(threshold=0.5), "attention"),
    ],
)
def test_needs(policy, statistic):
    assert policy.needs == {statistic}
    with pytest.raises(ValueError, match=f"needs {statistic}"):
        policy.decide(observe([(1, 0, False)]))


def test_rule_policies_need_nothing():
    policies = [WaitK(k=1), Offline(), Fixed(trace=(1,)), LocalAgreement(n=2), HoldN(n=1)]
    assert [policy.needs for policy in policies] == [frozenset()] * 5


@pytest.mark.parametrize(
    "policy",
    [
        *(WaitK(k=3), Offline(), Fixed(trace=(2, 2, 5)), Entropy(threshold=1, min_lag=0)),
        *(HoldN(n=1), WaitK(k=3, stride=2.5), Entropy(threshold=1, min_lag=-2, stride=0.7)),
    ],
)
def test_required_units_of_lanes_equal_those_of_one(policy):
    words_B = torch.tensor([4, 0, 2, 3, 1])
    expected = [policy.required_units(words) for words in words_B.tolist()]
    expected = [WHOLE_SOURCE if units is None else units for units in expected]
    assert policy.required_units_B(words_B).tolist() == expected


def test_overdue():
    policy = LocalAgreement(n=2, max_lag=3)
    assert [policy.overdue(units, 1) for units in (2, 3, 4, 5)] == [False, False, True, True]
    assert not LocalAgreement(n=2).overdue(100, 0)
    policy = LocalAgreement(n=2, max_lag=3, stride=1.5)  # the third word: at 3 + 3
    assert [policy.overdue(units, 2) for units in (4, 5, 6)] == [False, False, True]
