"""Layouts: where tokens sit, and which values are refused."""

import pytest

from proactivellm.model.layout import Group, grouped, interleaved, make_layout


def test_grouped_counts_each_group_for_itself():
    layout = grouped(phi=64)
    assert layout.position(Group.SOURCE, 3, 5) == 3
    assert layout.position(Group.TARGET, 3, 5) == 69
    assert layout.shares_source


def test_interleaved_counts_arrivals():
    layout = interleaved(phi=10)
    assert layout.position(Group.SOURCE, 3, 5) == 8
    assert layout.position(Group.TARGET, 3, 5) == 18
    assert not layout.shares_source


def test_only_a_source_query_in_the_grouped_layout_is_kept_from_the_target():
    assert grouped().attends == ((True, False), (True, True))
    assert interleaved().attends == ((True, True), (True, True))


def test_layouts_are_found_by_name():
    assert make_layout("grouped", 7) == grouped(7)
    assert make_layout("interleaved") == interleaved()


def test_bad_layouts_are_refused():
    with pytest.raises(ValueError, match="unknown layout 'diagonal'; known: grouped, interleaved"):
        make_layout("diagonal")
    for kind in (grouped, interleaved):
        with pytest.raises(ValueError, match="phi must be 0 or more, got -1"):
            kind(-1)


def test_layouts_carry_their_names_and_counters():
    assert (grouped().name, interleaved().name) == ("grouped", "interleaved")
    assert grouped().shared_counter is False and interleaved().shared_counter is True
