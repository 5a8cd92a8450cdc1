"""Suite `capacity`: how many live sessions are served in time, on the real clock.

Every session hears a unit at a fixed pace, at a phase of its own. Under wait-k a unit from the k-th
on allows one token; it is late when the step that writes this token ends after the deadline.
"""

import heapq
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from proactivellm.bench.measure import memory, percentiles_ms
from proactivellm.bench.scope import Options
from proactivellm.bench.workload import Bench, Endless, Work, count_tokens, drawn_work
from proactivellm.policy.fixed import WaitK
from proactivellm.session.events import Event
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Stream, Streams

SHARPNESS = 8  # the number of sessions is found to one part in so many


@dataclass
class Talk:
    """A live session."""

    stream: Stream
    work: Work  # what it hears
    # Of each unit; None: before the clock was started.
    arrived_s: list[float | None] = field(default_factory=list)
    written: int = 0  # tokens


class Arrivals:
    """As many sessions as asked for, whose units arrive at a pace; one that ends is replaced."""

    def __init__(self, model: Endless, options: Options, num_sessions: int) -> None:
        self.options = options
        limits = Limits(streams=num_sessions)
        self.streams = Streams(model, WaitK(k=options.k), limits, sampling=Sampling())
        self.works = drawn_work(model, options.source, options.target, options.seed)
        self.talks: list[Talk] = []
        self.due: list[tuple[float, int]] = []  # when the next unit of which session arrives
        self.latency_s: list[float] = []
        self.steps = self.tokens = 0
        self._settle(num_sessions)

    def run(self) -> None:
        """Lets units arrive for the seconds asked for; what is still owed then is late."""
        draw, unit_s = random.Random(self.options.seed), self.options.unit_ms / 1000
        # Sessions have phases of their own: in step, all units would arrive at once.
        started_s = now_s = time.perf_counter()
        end_s = started_s + self.options.seconds
        self.due = [(started_s + draw.random() * unit_s, place) for place in range(len(self.talks))]
        heapq.heapify(self.due)
        while now_s < end_s:
            self._hear(now_s)
            events = self.streams.step()
            now_s = time.perf_counter()
            if events is None:
                time.sleep(max(0.0, min(self.due[0][0], end_s) - now_s))
                now_s = time.perf_counter()
            else:
                self.steps += 1
                self._note(events, now_s)
        deadline_s = self.options.deadline_ms / 1000
        # A unit whose time is not over is neither in time nor late.
        owed = [now_s - at for talk in self.talks for at in self._unanswered(talk)]
        self.latency_s += [wait_s for wait_s in owed if wait_s > deadline_s]

    def _settle(self, num_sessions: int) -> None:
        """Starts every session somewhere in its source, and writes what that allows."""
        draw, options = random.Random(self.options.seed), self.options
        # Caches of all lengths, as in a service that has run for a while.
        longest = min(options.source - 1, options.target + options.k - 2)
        for _ in range(num_sessions):
            work, heard = next(self.works), draw.randint(0, longest)
            self.talks.append(Talk(self.streams.open(), work, [None] * heard))
            self.talks[-1].stream.push(work.units[:heard])
        while self.streams.step() is not None:
            pass
        for talk in self.talks:
            talk.written = talk.stream.state.num_written

    def _hear(self, now_s: float) -> None:
        """Pushes the units that have arrived."""
        while self.due[0][0] <= now_s:
            at_s, place = self.due[0]
            talk = self.talks[place]
            heard = len(talk.arrived_s)
            if heard < len(talk.work.units):
                talk.arrived_s.append(at_s)
                talk.stream.push([talk.work.units[heard]])
            heapq.heapreplace(self.due, (at_s + self.options.unit_ms / 1000, place))

    def _note(self, events: list[Event], now_s: float) -> None:
        """Takes the latency of units whose tokens were written; replaces sessions that ended."""
        self.tokens += count_tokens(events)
        for place, talk in enumerate(self.talks):
            # From 0: the units that allowed the tokens which are new.
            answered = range(talk.written, talk.stream.state.num_written)
            for unit in (token + self.options.k - 1 for token in answered):
                arrived_s = talk.arrived_s[unit] if unit < len(talk.arrived_s) else None
                if arrived_s is not None:
                    self.latency_s.append(now_s - arrived_s)
            talk.written = talk.stream.state.num_written
            if talk.written == talk.work.num_tokens:
                talk.stream.cancel()
                self.talks[place] = Talk(self.streams.open(), next(self.works))

    def _unanswered(self, talk: Talk) -> list[float]:
        """Arrival times of units whose token is not written yet."""
        first = talk.written + self.options.k - 1
        return [at for at in talk.arrived_s[first:] if at is not None]


def run_capacity(bench: Bench, result: dict[str, Any]) -> None:
    """Measures suite `capacity`.

    Fills `result` with the `curve`, by number of sessions, and the most that were `sustained`: with
    that percentile of the latencies within the deadline.
    """
    options = bench.options
    result |= {"deadline_ms": options.deadline_ms, "unit_ms": options.unit_ms, "curve": []}
    Arrivals(bench.model, replace(options, seconds=min(options.seconds, 0.5)), 1).run()  # warm-up
    climb(lambda num: _point(bench.model, options, num), bench, result, "capacity")
    result["memory"] = memory(bench.model.device)


def climb(
    point: Callable[[int], dict[str, Any]], bench: Bench, result: dict[str, Any], suite: str
) -> None:
    """Measures points of the `curve` of a result until the most sessions sustained are found."""
    options = bench.options
    good, bad = 0, options.max_sessions + 1
    while (num := _next_number(good, bad, options.max_sessions)) is not None:
        result["curve"] = sorted([*result["curve"], point(num)], key=lambda p: p["sessions"])
        at_num = next(each for each in result["curve"] if each["sessions"] == num)
        if _is_in_time(at_num, "p95", options.deadline_ms):
            good = num
        else:
            bad = num
        result["sustained"] = {name: _sustained(result, name) for name in ("p95", "p99")}
        bench.progress(f"{suite}: {num} sessions", 1, 1)


def late(latency_s: Sequence[float], options: Options) -> int:
    """How many are beyond the deadline."""
    return sum(s > options.deadline_ms / 1000 for s in latency_s)


def _next_number(good: int, bad: int, most: int) -> int | None:
    """Sessions to try next: twice as many until there are too many, then in between.

    That is between `good`, served in time, and `bad`; None if they are close enough.
    """
    if bad > most:
        return min(max(2 * good, 1), most) if good < most else None
    return (good + bad) // 2 if bad - good > max(1, good // SHARPNESS) else None


def _point(model: Endless, options: Options, num_sessions: int) -> dict[str, Any]:
    arrivals = Arrivals(model, options, num_sessions)
    arrivals.run()
    latency_s = arrivals.latency_s
    if not latency_s:
        raise ValueError(f"no unit was answered in {options.seconds:g} s: give more --seconds")
    return {
        "sessions": num_sessions,
        "units": len(latency_s),
        "late": late(latency_s, options),
        "latency_ms": percentiles_ms(latency_s),
        "steps": arrivals.steps,
        "tokens": arrivals.tokens,
    }


def _sustained(result: dict[str, Any], percentile: str) -> int:
    """The most sessions up to which every number tried was served in time."""
    most = 0
    # Beyond the first number that was late, another that was in time was lucky.
    for point in result["curve"]:
        if not _is_in_time(point, percentile, result["deadline_ms"]):
            break
        most = point["sessions"]
    return most


def _is_in_time(point: Mapping[str, Any], percentile: str, deadline_ms: float) -> bool:
    return not point.get("failed") and point["latency_ms"][percentile] <= deadline_ms
