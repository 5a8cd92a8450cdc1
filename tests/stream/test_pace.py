"""Units held back to a clock."""

import math

import pytest

from proactivellm.core.unit import Unit
from proactivellm.stream import Pace, pace, paced


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def units(*ends_s: float) -> list[Unit]:
    return [Unit(text=str(end_s), end_s=end_s) for end_s in ends_s]


def test_units_are_taken_once_they_are_due(clock: Clock) -> None:
    held = Pace()
    assert not held and held.due_s == math.inf and held.last_s == 0 and held.take() == []
    held.add(units(0.0, 0.5, 2.0))
    assert held and held.due_s == 100 and held.last_s == 2
    assert held.take() == units(0.0)
    clock.sleep(1)
    assert held.take() == units(0.5) and held.due_s == 102
    assert held.take(all_of_it=True) == units(2.0) and not held


def test_paced_sleeps_until_each_is_due(clock: Clock) -> None:
    arrivals = paced([units(1.0, 1.0), [], units(1.5), units(0.5)])
    arrived = [(clock.now_s - 100, [unit.text for unit in due]) for due in arrivals]
    assert arrived == [(1.0, ["1.0", "1.0"]), (1.5, ["1.5"]), (1.5, ["0.5"])]
