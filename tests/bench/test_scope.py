"""What cannot be measured is refused, with what to give instead."""

from typing import Any

import pytest

from proactivellm.bench.scope import Options, parse_numbers


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"suites": ("speed",)},
            "suite 'speed': choose from alone, sessions, window, capacity, serve",
        ),
        ({"suites": ()}, "suite none"),
        ({"source": 0}, "source=0: give 1 or more"),
        ({"seconds": 0.0}, "seconds=0: give a positive number"),
        ({"deadline_ms": float("nan")}, "deadline_ms=nan"),
        ({"long": -1}, "long=-1"),
        ({"sessions": (1, 0)}, "sessions: give numbers of 1 or more"),
        ({"units": (100, 8000)}, "two numbers of units beyond it"),
        ({"units": (800, 800)}, "two numbers of units beyond it"),
        ({"window": 8}, "a window of 16 or more"),
    ],
)
def test_sizes_that_are_none(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**wrong)


def test_numbers_joined_by_commas() -> None:
    assert parse_numbers("1,16, 64", "sessions") == (1, 16, 64)
    with pytest.raises(ValueError, match="sessions '1;2': give whole numbers joined by commas"):
        parse_numbers("1;2", "sessions")
