"""Packed views: tokens, positions, labels and arrivals, token by token."""

import pytest

from proactivellm.model.layout import Group, grouped, interleaved
from proactivellm.model.masks import SHARED
from proactivellm.model.packing import IGNORE, Sample, arrival_stamp, pack

# No prompt, units of one and two tokens; an assistant prefix of two tokens.
SAMPLE = Sample(source_units=[[], [10], [20, 21]], target_head=[3, 4], target=[40, 41, 2])
OFFLINE, EARLY = [2, 2, 2], [1, 1, 2]


def test_units_do_not_count_the_prompt():
    assert SAMPLE.num_units == 2


def test_two_grouped_views():
    packed = pack(SAMPLE, [OFFLINE, EARLY], grouped(phi=64))
    target = [3, 4, 40, 41]  # the end is predicted, never an input
    assert packed.input_ids == [10, 20, 21, *target, *target]
    assert packed.group == [0] * 3 + [1] * 8
    assert packed.view == [SHARED] * 3 + [0] * 4 + [1] * 4
    assert packed.position == [0, 1, 2, 64, 65, 66, 67, 64, 65, 66, 67]
    labels = [IGNORE, 40, 41, 2]  # the last token of the head predicts the first of the target
    assert packed.label == [IGNORE] * 3 + labels + labels


def test_rows_arrive_with_the_units_they_see():
    packed = pack(SAMPLE, [EARLY], grouped())
    units_read = [stamp >> 33 for stamp in packed.arrival]
    # The prefix has the visibility of the first target token: the one-row shift of the layout.
    assert units_read == [1, 2, 2] + [1, 1, 1, 2]
    assert len(set(packed.arrival)) == len(packed.arrival)


def test_interleaved_views_are_ranked_in_arrival_order():
    packed = pack(SAMPLE, [OFFLINE, EARLY], interleaved())
    assert packed.input_ids == 2 * [10, 20, 21, 3, 4, 40, 41]
    assert packed.view == [0] * 7 + [1] * 7
    assert packed.position[:7] == [0, 1, 2, 3, 4, 5, 6]
    # Unit 1, both of the prefix and 40 (predicts with one unit read), unit 2, 41.
    assert packed.position[7:] == [0, 4, 5, 1, 2, 3, 6]


def test_phi_moves_interleaved_targets_only():
    packed = pack(SAMPLE, [EARLY], interleaved(phi=100))
    assert packed.position == [0, 4, 5, 101, 102, 103, 106]


def test_a_target_that_is_only_the_end():
    packed = pack(Sample(source_units=[[7], [8]], target_head=[3], target=[2]), [[1]], grouped())
    assert packed.input_ids == [7, 8, 3]
    assert packed.label == [IGNORE, IGNORE, 2]


def test_stamps_sort_by_arrival():
    source, target = Group.SOURCE, Group.TARGET
    stamps = [
        arrival_stamp(source, 0, 0),  # prompt
        arrival_stamp(source, 1, 5),
        arrival_stamp(target, 1, 0),  # after unit 1, before unit 2
        arrival_stamp(target, 1, 9),
        arrival_stamp(source, 2, 6),
    ]
    assert stamps == sorted(stamps)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="schedule has 2 entries for 3 tokens"):
        pack(SAMPLE, [OFFLINE, [1, 2]], grouped())
    with pytest.raises(ValueError, match="at least one head token"):
        pack(Sample(source_units=[[], [1]], target_head=[], target=[2]), [[1]], grouped())
