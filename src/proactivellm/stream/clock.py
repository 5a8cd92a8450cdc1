"""When something was written: on the clock of the wall, or on one that recorded sources keep."""

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since a source began."""

    @property
    def now_s(self) -> float:
        """What it shows."""
        ...

    def work(self, arrived_s: float, spent_s: float) -> None:
        """Something was done that took `spent_s`, with what had arrived at `arrived_s`."""
        ...


class WallClock:
    """Real time; what takes time has passed already."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()

    @property
    def now_s(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._started_s

    def work(self, arrived_s: float, spent_s: float) -> None:
        """Nothing to do."""


class ArrivalClock:
    """As if the source had arrived at its own pace: nothing sleeps, and computing overlaps with it.

    Work begins when the work before it is done and what it needs has arrived.

    Args:
        step_s: what every step takes: a stated rate of decoding; as measured if left out.
    """

    def __init__(self, step_s: float | None = None) -> None:
        self.now_s = 0.0
        self._step_s = step_s

    def work(self, arrived_s: float, spent_s: float) -> None:
        """Goes on by what was spent."""
        self.now_s = max(self.now_s, arrived_s) + (
            spent_s if self._step_s is None else self._step_s
        )
