"""Layouts: where tokens sit, what may be shared between views, and which values are refused."""

import pytest

from proactivellm.core.layout import (
    LAYOUTS,
    Layout,
    grouped,
    interleaved,
    make_layout,
    reencoded,
    thoughts,
)


def placed(layout: Layout, *pieces: tuple[str, int]) -> list[list[int]]:
    """Positions of runs of tokens, in the order in which they arrive."""
    numbers = layout.numbers({})
    runs = [layout.positions(layout.index[name], n, numbers) for name, n in pieces]
    assert all(run.shape == (1, n) for run, (_, n) in zip(runs, pieces, strict=True))
    return [run[0].tolist() for run in runs]


ARRIVALS = ("source", 2), ("target", 2), ("source", 1), ("target", 1)


def test_grouped_counts_each_group_for_itself():
    assert placed(grouped(phi=64), *ARRIVALS) == [[0, 1], [64, 65], [2], [66]]


@pytest.mark.parametrize("kind", [interleaved, reencoded])
def test_one_counter_counts_arrivals(kind):
    assert placed(kind(phi=10), *ARRIVALS) == [[0, 1], [12, 13], [4], [15]]


def test_thoughts_and_target_are_one_text():
    arrivals = ("source", 2), ("thought", 2), ("target", 1), ("source", 1), ("thought", 1)
    assert placed(thoughts(phi=9), *arrivals) == [[0, 1], [9, 10], [11], [2], [12]]


def test_what_a_lane_holds_goes_before():
    layout = thoughts(phi=9)
    numbers = layout.numbers({"source": 3, "thought": 2, "target": 4})
    assert layout.positions(layout.index["target"], 2, numbers).tolist() == [[15, 16]]
    assert layout.positions(layout.index["source"], 1, numbers).tolist() == [[3]]


def test_only_a_source_that_sees_nothing_written_is_kept_from_it():
    assert grouped().attends == ((True, False), (True, True))
    assert interleaved().attends == reencoded().attends == ((True, True), (True, True))
    assert thoughts().attends[0] == (True, False, False)
    assert grouped().sees_all.tolist() == [False, True]
    assert thoughts().sees_all.tolist() == [False, True, True]


def test_what_views_may_share():
    """Neither what is written, nor what sees it, nor what counts with it; and so on."""
    assert grouped().independent(["source"]) == {"source"}
    assert thoughts().independent(["source"]) == {"source"}
    assert interleaved().independent(["source"]) == set()
    own = Layout(
        name="tools",
        groups=("source", "tool", "frames", "target"),
        attends=(
            (True, False, False, False),
            (True, True, False, True),  # a tool's answer sees what was written
            (False, True, True, False),
            (True, True, True, True),
        ),
        counter=(0, 1, 2, 3),
        offset=(0, 0, 0, 0),
    )
    assert own.independent(["source", "tool", "frames"]) == {"source"}
    assert own.independent(["source"]) == {"source"}


def test_layouts_are_found_by_name():
    assert make_layout("grouped", 7) == grouped(7)
    assert all(make_layout(name).name == name for name in LAYOUTS)
    assert [name for name in LAYOUTS if make_layout(name).reencoded] == ["reencoded"]


def test_bad_layouts_are_refused():
    with pytest.raises(ValueError, match="unknown layout 'diagonal'; known: grouped, interleaved"):
        make_layout("diagonal")
    for kind in LAYOUTS.values():
        with pytest.raises(ValueError, match="phi must be 0 or more, got -1"):
            kind(-1)
    good = vars(grouped())
    for change in (
        {"groups": ("source", "source")},
        {"groups": ("source", "thought", "target")},
        {"attends": ((True,), (True,))},
        {"counter": (0,)},
    ):
        with pytest.raises(ValueError, match="layout 'grouped': give each of its groups"):
            Layout(**{**good, **change})
