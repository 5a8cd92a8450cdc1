"""settle() and decide(): truth tables over lanes in mixed states, and the counters behind them."""

from typing import Any

import pytest
import torch

from proactivellm.policy import evidence
from proactivellm.policy.agreement import HoldN, LocalAgreement
from proactivellm.policy.alignatt import AlignAtt
from proactivellm.policy.attention import Attention, Combined, Concentration
from proactivellm.policy.base import DraftPolicy, Policy
from proactivellm.policy.endogenous import Confidence, Entropy
from proactivellm.policy.evidence import Evidence, Seen
from proactivellm.policy.fixed import Fixed, Offline, WaitK
from proactivellm.policy.reason import Reason

NUM_SOURCE, NUM_TARGET = 5, 9
MAX_LAG, MIN_LAG, RULE = Reason.WRITE_MAX_LAG, Reason.READ_MIN_LAG, None


def observe(lanes: list[tuple[int, int]], values: dict[Evidence, list[Any]]) -> Seen:
    """Lanes are (units read, words written)."""
    units, words = zip(*lanes, strict=True)
    return Seen(
        units_read_B=torch.tensor(units),
        units_in_view_B=torch.tensor(units),
        words_written_B=torch.tensor(words),
        evidence={key: torch.tensor(value) for key, value in values.items()},
    )


def rule(policy: Policy, units: list[int], **values: list[Any]) -> list[bool]:
    """What the rule says of lanes that have read so much; values by the name of an evidence."""
    kinds = {"entropy": evidence.Entropy(), "max_prob": evidence.Confidence()}
    kinds["attention"] = evidence.Attention()
    seen = observe([(u, 0) for u in units], {kinds[key]: value for key, value in values.items()})
    codes = policy.decide(seen)
    assert codes.dtype == torch.int64
    reasons = [Reason(code) for code in codes.tolist()]
    assert set(reasons) <= {Reason.READ_RULE, Reason.WRITE_RULE}
    return [reason.writes for reason in reasons]


def simulate(policy: Policy) -> list[int]:
    """Run a source of NUM_SOURCE units: the units read before each of NUM_TARGET words."""
    units, delays = 0, []
    while len(delays) < NUM_TARGET:
        reason = policy.settle(units, len(delays))
        if reason is None:
            codes = policy.decide(observe([(units, len(delays))], {evidence.Entropy(): [9.0]}))
            reason = Reason(codes.item())
        if reason.writes or units == NUM_SOURCE:
            delays.append(units)
        else:
            units += 1
    return delays


def test_the_code_says_whether_it_is_a_write() -> None:
    assert all(reason.writes == reason.name.startswith("WRITE") for reason in Reason)
    assert Reason.READ_RULE.text == Reason.WRITE_RULE.text == "policy"
    assert len({reason.text for reason in Reason}) == len(Reason) - 1


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
    for stride, units, words in [(1.1, 11, 10), (2.3, 23, 10), (0.1, 1, 10), (1 / 3, 1, 3)]:
        policy = WaitK(k=1, stride=stride)
        expected = [-(-number * units // words) for number in range(5001)]
        assert [policy.pace(number) for number in range(5001)] == expected
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


@pytest.mark.parametrize(
    ("policy", "lanes", "written"),
    [
        (WaitK(k=3), [(2, 0), (3, 0), (3, 1), (4, 1)], [False, True, False, True]),
        (Offline(), [(9, 0), (2, 8)], [False, False]),
        (Fixed(trace=(1, 2, 4)), [(1, 0), (1, 1), (2, 1), (99, 3)], [True, False, True, False]),
    ],
)
def test_a_schedule_leaves_nothing_open(policy, lanes, written):
    reasons = [policy.settle(*lane) for lane in lanes]
    assert reasons == [Reason.WRITE_RULE if write else Reason.READ_RULE for write in written]
    assert policy.early == Reason.READ_RULE


@pytest.mark.parametrize(
    ("units", "words", "reason"),
    [
        (1, 0, MIN_LAG),
        (2, 0, RULE),
        (3, 0, RULE),
        (4, 0, MAX_LAG),
        (4, 1, RULE),
        (5, 1, MAX_LAG),
        (2, 1, MIN_LAG),
    ],
)
def test_bounds_are_settled_before_the_rule_is_asked(units, words, reason):
    assert Entropy(threshold=1.0, min_lag=2, max_lag=4).settle(units, words) == reason
    free = Entropy(threshold=1.0, min_lag=2)
    assert free.settle(units, words) == (None if reason == MAX_LAG else reason)


def test_entropy_lanes():
    assert rule(Entropy(threshold=1.0), [2, 2, 4], entropy=[0.9, 1.0, 5.0]) == [True, False, False]


def test_confidence_lanes():
    assert rule(Confidence(threshold=0.5), [2, 2], max_prob=[0.51, 0.5]) == [True, False]


def test_attention_lanes_of_different_lengths():
    units = [2, 2, 4, 4, 1]
    attention = [
        [0.8, 0.2, 0.0, 0.0],  # newest unit has 0.2
        [0.2, 0.8, 0.0, 0.0],  # 0.8
        [0.1, 0.2, 0.4, 0.3],  # 0.3
        [0.1, 0.1, 0.1, 0.7],  # 0.7
        [1.0, 0.0, 0.0, 0.0],  # nothing but the newest
    ]
    decided = rule(Attention(threshold=0.5), units, attention=attention)
    assert decided == [True, False, True, False, False]
    # Frontier 2: lanes of two units have nothing older; the others have 0.7 and 0.8.
    decided = rule(Attention(threshold=0.75, frontier=2), units, attention=attention)
    assert decided == [False, False, True, False, False]


def test_attention_threshold_one_is_immune_to_rounding():
    assert rule(Attention(threshold=1.0), [1], attention=[[0.9999999]]) == [False]


def test_alignatt_looks_at_the_most_attended_unit():
    attention = [[0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0]]
    units = [3, 3, 3, 1]
    assert rule(AlignAtt(frontier=1), units, attention=attention) == [True, True, False, False]
    assert rule(AlignAtt(frontier=2), units, attention=attention) == [True, False, False, False]


def test_concentration_needs_one_unit_to_stand_out_among_several():
    attention = [[0.1, 0.2, 0.7], [0.3, 0.4, 0.3], [1.0, 0.0, 0.0]]
    decided = rule(Concentration(threshold=0.6), [3, 3, 1], attention=attention)
    assert decided == [True, False, False]


def test_combined_wants_certainty_and_evidence_that_is_not_the_newest():
    attention = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [1.0, 0.0]]
    policy, probs = Combined(threshold=0.5), [0.9, 0.4, 0.9, 0.9]
    decided = rule(policy, [2, 2, 2, 1], attention=attention, max_prob=probs)
    assert decided == [True, False, False, False]


def test_undefined_statistic_reads():
    assert rule(Entropy(threshold=1.0), [3], entropy=[float("nan")]) == [False]


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (Entropy(threshold=1.0), (evidence.Entropy(),)),
        (Entropy(threshold=1.0, top=20), (evidence.Entropy(20),)),
        (Confidence(threshold=0.5), (evidence.Confidence(),)),
        (Attention(threshold=0.5, heads=((0, 1),)), (evidence.Attention(((0, 1),)),)),
        (Combined(threshold=0.5), (evidence.Attention(), evidence.Confidence())),
    ],
)
def test_a_policy_names_its_evidence_and_gets_no_other(policy, wanted):
    assert policy.evidence == wanted
    with pytest.raises(ValueError, match="was not computed: the policy has to name it"):
        policy.decide(observe([(1, 0)], {evidence.Candidate(): [5]}))


def test_rule_policies_need_nothing():
    policies = [WaitK(k=1), Offline(), Fixed(trace=(1,)), LocalAgreement(n=2), HoldN(n=1)]
    assert [policy.evidence for policy in policies] == [()] * 5
    assert all(policy.early == Reason.READ_RULE for policy in policies)
    assert isinstance(policies[-1], DraftPolicy)


def test_overdue():
    policy = LocalAgreement(n=2, max_lag=3)
    assert [policy.overdue(units, 1) for units in (2, 3, 4, 5)] == [False, False, True, True]
    assert not LocalAgreement(n=2).overdue(100, 0)
    policy = LocalAgreement(n=2, max_lag=3, stride=1.5)  # the third word: at 3 + 3
    assert [policy.overdue(units, 2) for units in (4, 5, 6)] == [False, False, True]
