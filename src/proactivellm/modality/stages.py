"""Work in stages that overlap: a thread for each, and queues between them that are bounded.

In: a source of items, and what each stage does with one of them. Out: what the last stage made, in
the order of the source. A stage that is slower than the others is waited for, and never runs away
from: the pipeline is as fast as it alone (ViCoStream, arXiv 2606.19849).
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

SOURCE = "source"
POLL_S = 0.1  # how often a stage that waits asks whether all is over


class Stage(NamedTuple):
    """What is done with each item, in a thread of its own."""

    name: str
    work: Callable[[Any], Any]


@dataclass
class Spent:
    """Where the time of one stage went, in seconds."""

    name: str
    items: int = 0
    busy_s: float = 0.0
    cpu_s: float = 0.0  # of these, on a processor, in its own thread: what else runs does not count
    starved_s: float = 0.0  # it waited for an item
    blocked_s: float = 0.0  # it waited until the next stage took one


@dataclass(frozen=True)
class _Failed:
    """Goes through the queues in place of an item, behind those before it."""

    error: BaseException


class _Over(Exception):
    """The pipeline was left."""


_END = object()


class Pipeline:
    """Stages at work on one source; run it once.

    Attributes:
        spent: of the source, whose work is to give the next item, and of every stage.

    Args:
        stages: at least one.
        depth: items that may wait before a stage.
    """

    def __init__(self, stages: Sequence[Stage], depth: int = 2) -> None:
        if not stages or depth < 1:
            raise ValueError(f"{len(stages)} stages with room for {depth} items: give 1 or more")
        self.spent = [Spent(SOURCE), *(Spent(stage.name) for stage in stages)]
        self._stages = stages
        self._queues = [queue.Queue[Any](depth) for _ in self.spent]
        self._over = threading.Event()

    def run(self, source: Iterable[Any]) -> Iterator[Any]:
        """What the last stage made of each item.

        Raises:
            Exception: what the source or a stage raised, after all that came before it; the rest
                is given up, as it is if this is left early.
        """
        works = [partial(self._feed, source)]
        works += [partial(self._work, place) for place in range(1, len(self.spent))]
        names = [spent.name for spent in self.spent]
        threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for work, name in zip(works, names, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            while (item := self._queues[-1].get()) is not _END:
                if isinstance(item, _Failed):
                    raise item.error
                yield item
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    @property
    def bottleneck(self) -> str:
        """The stage that was busy for the longest time: it limits the rate of all."""
        return max(self.spent, key=lambda spent: spent.busy_s).name

    def _feed(self, source: Iterable[Any]) -> None:
        items, spent = iter(source), self.spent[0]

        def made() -> Iterator[Any]:
            while (item := self._done(spent, next, items, _END)) is not _END:
                yield item

        self._settle(0, made())

    def _work(self, place: int) -> None:
        work, spent = self._stages[place - 1].work, self.spent[place]

        def made() -> Iterator[Any]:
            while (item := self._take(place)) is not _END:
                yield item if isinstance(item, _Failed) else self._done(spent, work, item)

        self._settle(place, made())

    def _settle(self, place: int, made: Iterator[Any]) -> None:
        """Give on what is made, then the end, or why there is no more."""
        try:
            try:
                for item in made:
                    self._give(place, item)
                self._give(place, _END)
            except _Over:
                raise
            except BaseException as error:
                self._give(place, _Failed(error))
        except _Over:
            pass

    def _done(self, spent: Spent, work: Callable[..., Any], *item: Any) -> Any:
        started, cpu_s = time.perf_counter(), time.thread_time()
        result = work(*item)
        if result is not _END:
            spent.items += 1
            spent.busy_s += time.perf_counter() - started
            spent.cpu_s += time.thread_time() - cpu_s
        return result

    def _take(self, place: int) -> Any:
        started, waiting = time.perf_counter(), self._queues[place - 1]
        while True:
            self._check()
            try:
                item = waiting.get(timeout=POLL_S)
            except queue.Empty:
                continue
            self.spent[place].starved_s += time.perf_counter() - started
            return item

    def _give(self, place: int, item: Any) -> None:
        started = time.perf_counter()
        while True:
            self._check()
            try:
                self._queues[place].put(item, timeout=POLL_S)
            except queue.Full:
                continue
            self.spent[place].blocked_s += time.perf_counter() - started
            return

    def _check(self) -> None:
        if self._over.is_set():
            raise _Over
