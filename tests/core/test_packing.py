"""Packed views: tokens, positions, labels and arrivals, token by token."""

import pytest
from tests.two_groups import sample_of, views_of

from proactivellm.core.layout import grouped, interleaved, reencoded, thoughts
from proactivellm.core.masks import SHARED
from proactivellm.core.packing import IGNORE, Sample, Written, arrival_stamp, pack

# No prompt, units of one and two tokens; an assistant prefix of two tokens.
SAMPLE = sample_of([[], [10], [20, 21]], [3, 4], [40, 41, 2])
OFFLINE, EARLY = [2, 2, 2], [1, 1, 2]
THOUGHT = Sample(
    read=SAMPLE.read, written={"thought": Written(head=[5], tokens=[60, 61]), **SAMPLE.written}
)


def test_units_do_not_count_the_prompt():
    assert SAMPLE.num_units == 2


def test_two_grouped_views():
    packed = pack(SAMPLE, views_of([OFFLINE, EARLY]), grouped(phi=64))
    target = [3, 4, 40, 41]  # the end is predicted, never an input
    assert packed.input_ids == [10, 20, 21, *target, *target]
    assert packed.group == [0] * 3 + [1] * 8
    assert packed.view == [SHARED] * 3 + [0] * 4 + [1] * 4
    assert packed.position == [0, 1, 2, 64, 65, 66, 67, 64, 65, 66, 67]
    labels = [IGNORE, 40, 41, 2]  # the last token of the head predicts the first of the target
    assert packed.label == [IGNORE] * 3 + labels + labels


def test_rows_arrive_with_the_units_they_see():
    packed = pack(SAMPLE, views_of([EARLY]), grouped())
    units_read = [stamp >> 33 for stamp in packed.arrival]
    # The prefix has the visibility of the first target token: the one-row shift of the layout.
    assert units_read == [1, 2, 2] + [1, 1, 1, 2]
    assert len(set(packed.arrival)) == len(packed.arrival)


def test_interleaved_views_are_ranked_in_arrival_order():
    packed = pack(SAMPLE, views_of([OFFLINE, EARLY]), interleaved())
    assert packed.input_ids == 2 * [10, 20, 21, 3, 4, 40, 41]
    assert packed.view == [0] * 7 + [1] * 7
    assert packed.position[:7] == [0, 1, 2, 3, 4, 5, 6]
    # Unit 1, both of the prefix and 40 (predicts with one unit read), unit 2, 41.
    assert packed.position[7:] == [0, 4, 5, 1, 2, 3, 6]


def test_phi_moves_interleaved_targets_only():
    packed = pack(SAMPLE, views_of([EARLY]), interleaved(phi=100))
    assert packed.position == [0, 4, 5, 101, 102, 103, 106]


def test_a_third_group_is_a_schedule_more():
    """Thought after one unit and after two, target after two; between units, thought is first."""
    view = {"thought": [1, 2], "target": OFFLINE}
    packed = pack(THOUGHT, [view], thoughts(phi=50))
    assert packed.input_ids == [10, 20, 21, 5, 60, 3, 4, 40, 41]
    assert packed.group == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert packed.view == [SHARED] * 3 + [0] * 6
    assert packed.position == [0, 1, 2, 50, 51, 52, 53, 54, 55]
    assert packed.label == [IGNORE] * 3 + [60, 61] + [IGNORE, 40, 41, 2]
    early = pack(THOUGHT, [{"thought": [1, 2], "target": [1, 2, 2]}], thoughts(phi=50))
    # 5 and the prefix arrive with unit 1, then 60 and the rest with unit 2.
    assert early.position[3:] == [50, 53, 51, 52, 54, 55]


def test_several_groups_may_be_read():
    """A group of the writer's choice that arrives beside the source, and depends on nothing."""
    layout = thoughts()
    sample = Sample(read={**SAMPLE.read, "thought": [[], [], [70]]}, written=SAMPLE.written)
    packed = pack(sample, views_of([EARLY]), layout)
    assert packed.input_ids == [10, 20, 21, 70, 3, 4, 40, 41]
    assert packed.view == [SHARED] * 3 + [0] * 5, "thought counts with the target"
    assert packed.position == [0, 1, 2, 3, 0, 1, 2, 4]


def test_a_target_that_is_only_the_end():
    packed = pack(sample_of([[7], [8]], [3], [2]), views_of([[1]]), grouped())
    assert packed.input_ids == [7, 8, 3]
    assert packed.label == [IGNORE, IGNORE, 2]


def test_stamps_sort_by_arrival():
    layout = thoughts()
    arrivals = [
        ("source", 0, 0),  # prompt
        ("source", 1, 5),
        ("thought", 1, 7),
        ("target", 1, 0),  # after unit 1, before unit 2
        ("target", 1, 9),
        ("source", 2, 6),
    ]
    stamps = [arrival_stamp(layout, layout.index[name], *when) for name, *when in arrivals]
    assert stamps == sorted(stamps)


@pytest.mark.parametrize(
    ("g", "message"),
    [
        ([1, 2], "schedule has 2 entries for 3"),
        ([1, 1, 99], r"schedule g\[2\] = 99 is outside 1..2"),
        ([0, 1, 1], r"schedule g\[0\] = 0 is outside 1..2"),
        ([2, 1, 2], "schedule decreases at step 1: 2 -> 1"),
    ],
)
def test_what_is_no_schedule_is_refused(g, message):
    for layout in (grouped(), interleaved()):
        with pytest.raises(ValueError, match=message):
            pack(SAMPLE, views_of([OFFLINE, g]), layout)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="the target group needs at least one head token"):
        pack(sample_of([[], [1]], [], [2]), views_of([[1]]), grouped())
    with pytest.raises(ValueError, match="layout 'grouped' has no group 'thought'"):
        pack(THOUGHT, [{"thought": [1, 2], "target": OFFLINE}], grouped())
    with pytest.raises(ValueError, match=r"schedules of \['target'\], .* \['thought', 'target'\]"):
        pack(THOUGHT, views_of([OFFLINE]), thoughts())


def test_what_is_encoded_anew_is_packed_where_nothing_is_read_between():
    packed = pack(SAMPLE, views_of([OFFLINE, [1, 1, 1]]), reencoded())
    assert packed.position == [0, 1, 2, 3, 4, 5, 6] + [0, 5, 6, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="'reencoded' encodes what is written anew at each READ"):
        pack(SAMPLE, views_of([OFFLINE, EARLY]), reencoded())
