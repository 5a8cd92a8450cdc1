"""Arrival on the clock: units are held back until they are due."""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from proactivellm.core.unit import Unit


class Pace:
    """Units of one source, each due `end_s` seconds after the source began, which is now."""

    def __init__(self) -> None:
        self.started_s = time.perf_counter()
        self._waiting: deque[Unit] = deque()

    def __bool__(self) -> bool:
        """Whether units are held back."""
        return bool(self._waiting)

    @property
    def due_s(self) -> float:
        """When the next unit is due, on the clock of the process; inf if none is held back."""
        return self.started_s + self._waiting[0].end_s if self._waiting else math.inf

    @property
    def last_s(self) -> float:
        """`end_s` of the last unit that is held back; 0 if there is none."""
        return self._waiting[-1].end_s if self._waiting else 0.0

    def add(self, units: Iterable[Unit]) -> None:
        """Holds back further units, whose times do not decrease."""
        self._waiting.extend(units)

    def take(self, all_of_it: bool = False) -> list[Unit]:
        """What is due by now, or all that is held back."""
        now_s = time.perf_counter()
        taken = []
        while self._waiting and (all_of_it or self.due_s <= now_s):
            taken.append(self._waiting.popleft())
        return taken


def paced(arrivals: Iterable[Sequence[Unit]]) -> Iterator[list[Unit]]:
    """Hold units back until they are due; the clock starts with the first that is asked for.

    An arrival that is empty passes through: nothing is there to wait for.
    """
    pace = Pace()
    for units in arrivals:
        pace.add(units)
        while pace:
            time.sleep(max(0.0, pace.due_s - time.perf_counter()))
            if due := pace.take():
                yield due
