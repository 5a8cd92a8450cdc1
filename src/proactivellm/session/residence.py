"""Says which lanes are in the cache, and parks others in host memory when it is full."""

from collections.abc import Sequence
from typing import Any

from proactivellm.core.layout import Layout
from proactivellm.forward.cache import ArrivalCache
from proactivellm.forward.lanes import LaneInput, place
from proactivellm.forward.pages import StoreFull

Entries = dict[str, Any]  # from ArrivalCache.snapshot


class Residence:
    """Admits lanes to a cache of limited size; parks the entries of others in host memory.

    A lane that is parked waits until there is room. One that is in the cache and grows goes
    before: idle lanes make way, then the youngest.
    """

    def __init__(self, cache: ArrivalCache) -> None:
        self.cache = cache
        self.parked: dict[int, Entries] = {}
        self._admitted: dict[int, None] = {}  # lanes in the cache, oldest first

    def forget(self, lane: int) -> None:
        """Drop a lane's entries."""
        self.parked.pop(lane, None)
        self._admitted.pop(lane, None)
        self.cache.clear(lane)

    def holds(self, lane: int) -> bool:
        """Whether a lane is in the cache."""
        return lane in self._admitted

    def cut(self, lane: int, length: int) -> None:
        """Forget a lane's last entries, wherever they are: the first `length` stay."""
        if lane not in self.parked:
            self.cache.lengths[lane] = length
            return
        entries = self.parked[lane]
        self.parked[lane] = {
            **entries,
            "keys": [keys[:length] for keys in entries["keys"]],
            "values": [values[:length] for values in entries["values"]],
            "kinds": entries["kinds"][:, :length],
        }

    def pass_over(self, step: LaneInput, layout: Layout) -> None:
        """Count units without tokens, wherever their lane is: positions go on after them."""
        lane, units = step.lane, step.last_unit
        if lane in self.parked:
            entries = self.parked[lane]
            _, reached = place(step, layout, entries.get("reached"))
            units = max(units, entries["units"])
            self.parked[lane] = {**entries, "reached": reached, "units": units}
        else:
            _, self.cache.reached[lane] = place(step, layout, self.cache.reached[lane])
            self.cache.units[lane] = max(units, self.cache.units[lane])

    def snapshot(self, lane: int) -> Entries:
        """A lane's entries, wherever they are."""
        return self.parked[lane] if lane in self.parked else self.cache.snapshot(lane)

    def restore(self, lane: int, entries: Entries) -> None:
        """Put entries into a lane, whose own are lost; they are parked if there is no room now.

        Raises:
            ValueError: if they are of another model; the lane stays as it is.
        """
        try:
            self.cache.restore(lane, entries)
        except StoreFull:
            self.forget(lane)
            self.parked[lane] = entries
        else:
            self.parked.pop(lane, None)
            self._admitted.pop(lane, None)
            self._admitted[lane] = None

    def fits(self, lane: int, length: int) -> bool:
        """Give a lane pages for so many entries, if that takes nothing from others; else False."""
        cache = self.cache
        if lane in self.parked:
            return False
        if not cache.may_grow and cache.missing_pages(lane, length) > cache.pool.num_free:
            return False
        cache.reserve(lane, length)
        self._admitted.setdefault(lane)
        return True

    def make_room(self, lane: int, length: int, idle: Sequence[int], others: Sequence[int]) -> bool:
        """Bring a lane into the cache, with pages for so many entries, at the cost of others.

        Idle lanes are among the others, which may be parked. False: it has to wait for them.

        Raises:
            StoreFull: if the whole cache is too small for it.
        """
        cache = self.cache
        resident = lane in self._admitted
        victims = [v for v in idle if cache.pages[v]]
        if resident:  # the youngest make way, so that the oldest is sure to get on
            youngest = [v for v in reversed(self._admitted) if v in others and v not in idle]
            victims += [v for v in youngest if cache.pages[v]]
        missing = cache.missing_pages(lane, length)
        if not cache.may_grow:
            if missing > cache.pool.num_free + sum(len(cache.pages[v]) for v in victims):
                if len(cache.pages[lane]) + missing > cache.pool.num_pages:
                    raise StoreFull(
                        f"the stream needs {length} cache entries and the engine has "
                        f"{cache.num_entries}: give it more, or the stream a window"
                    )
                return False
            while missing > cache.pool.num_free:
                self._park(victims.pop(0))
        if lane in self.parked:  # it stays so if it cannot be brought back
            cache.restore(lane, self.parked[lane])
            del self.parked[lane]
            self._admitted[lane] = None
        return self.fits(lane, length)

    def _park(self, lane: int) -> None:
        entries = self.cache.snapshot(lane)
        parked = {
            **entries,
            "keys": [keys.cpu() for keys in entries["keys"]],
            "values": [values.cpu() for values in entries["values"]],
        }
        self.forget(lane)  # not before the copy is whole
        self.parked[lane] = parked
