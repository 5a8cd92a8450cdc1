"""Suite `sessions`: many streams at once against one, each somewhere else in its stream.

A step is compared with the time that the memory takes to deliver what it reads: the weights, and
the entries of all streams, at the bandwidth of a large copy.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from proactivellm.bench.measure import (
    Laps,
    copy_bandwidth,
    held_entries,
    memory,
    percentiles_ms,
    weight_bytes,
)
from proactivellm.bench.workload import Bench, Crowd, Work, drawn_work, text_work
from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.base import Policy
from proactivellm.policy.fixed import WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Streams

TEXT_POLICIES = ("wait-k:3", "attention:laal=4")  # the second where the model is calibrated


@dataclass(frozen=True)
class Workload:
    """What is streamed: by which model and policy, and which works."""

    name: str
    model: StreamingCausalLM
    policy: Policy
    works: Callable[[], Iterator[Work]]  # streams without end, the same at every call


@dataclass
class Stretch:
    """Some lanes, and what was measured of them: of each step, and summed over each run."""

    crowd: Crowd
    laps: Laps
    tokens: list[int] = field(default_factory=list)  # written in each run
    wall_s: list[float] = field(default_factory=list)  # of each run
    cpu_s: list[float] = field(default_factory=list)  # of each run
    fed: int = 0  # tokens sent through the model
    used: list[int] = field(default_factory=list)  # entries in use after each step
    held: list[int] = field(default_factory=list)  # entries of the pages held after each step

    def run(self, steps: int) -> None:
        """Measures some more steps."""
        cache, begun = self.crowd.streams.engine.cache, len(self.laps.wall_s)
        fed, tokens = self.crowd.total_fed(), 0
        for _ in range(steps):
            with self.laps.lap():
                tokens += self.crowd.step()
            self.used.append(sum(cache.lengths))
            self.held.append(held_entries(cache))
        self.tokens.append(tokens)
        self.wall_s.append(sum(self.laps.wall_s[begun:]))
        self.cpu_s.append(sum(self.laps.cpu_s[begun:]))
        self.fed += self.crowd.total_fed() - fed


def run_sessions(bench: Bench, result: dict[str, Any]) -> None:
    """Measures suite `sessions`.

    Fills `result` with the bandwidth and a list of `workloads`: rates, step times, counts and
    memory of each, per number of sessions.
    """
    result["copy_bandwidth_bytes_per_s"] = copy_bandwidth(bench.model.device)
    result["workloads"] = []
    for workload in _workloads(bench):
        row: dict[str, Any] = {"name": workload.name, "sessions": {}}
        result["workloads"].append(row)
        _compare(bench, workload, row, result["copy_bandwidth_bytes_per_s"])
    result["memory"] = memory(bench.model.device)


def _compare(bench: Bench, workload: Workload, result: dict[str, Any], bandwidth: float) -> None:
    """Measures all numbers of sessions by turns."""
    options = bench.options
    stretches = {n: _start(workload, n, options.seed) for n in dict.fromkeys(options.sessions)}
    # By turns, so that a machine that slows down slows all numbers of sessions down.
    turns = options.repeats * len(stretches)
    for turn in range(turns):
        num_sessions = list(stretches)[turn % len(stretches)]
        stretch = stretches[num_sessions]
        stretch.run(options.steps)
        row = _summary(stretch, num_sessions, bandwidth)
        result["sessions"][str(num_sessions)] = row
        bench.progress(f"sessions, {workload.name}", turn + 1, turns)
    base, *others = result["sessions"].items()
    result["base"] = base[0]
    result["ratios"] = {n: row["tokens_per_s"] / base[1]["tokens_per_s"] for n, row in others}


def _workloads(bench: Bench) -> Iterator[Workload]:
    options, text = bench.options, bench.text_model
    sizes = (options.source, options.target, options.seed)
    yield Workload(
        name=f"drawn {options.source}/{options.target} wait-k:{options.k}",
        model=bench.model,
        policy=WaitK(k=options.k),
        works=lambda: drawn_work(bench.model, *sizes),
    )
    if text is None:
        return
    for spec in TEXT_POLICIES:
        try:
            policy = parse_policy(spec, find_calibration(text))
        except ValueError:  # not calibrated
            continue
        yield Workload(f"text {spec}", text, policy, lambda: text_work(text, options.seed))


def _start(workload: Workload, num_sessions: int, seed: int) -> Stretch:
    """Lanes that are past their first streams."""
    limits = Limits(streams=num_sessions)
    streams = Streams(workload.model, workload.policy, limits, sampling=Sampling())
    crowd = Crowd(streams, workload.works(), seed)
    crowd.settle()
    return Stretch(crowd, Laps(workload.model.device))


def _summary(stretch: Stretch, num_sessions: int, bandwidth: float) -> dict[str, Any]:
    engine = stretch.crowd.streams.engine
    entry = engine.cache.entry_bytes()
    rates = [t / s for t, s in zip(stretch.tokens, stretch.wall_s, strict=True)]
    cpu_rates = [t / s for t, s in zip(stretch.tokens, stretch.cpu_s, strict=True)]
    _, weights = weight_bytes(engine.model)
    # A step cannot be faster than memory delivers the weights and the entries of all streams.
    floor_ms = 1000 * (weights + fmean(stretch.used) * entry) / bandwidth
    step_ms = percentiles_ms(stretch.laps.wall_s)
    return {
        "tokens_per_s": median(rates),
        "tokens_per_s_repeats": rates,
        "tokens_per_cpu_s": median(cpu_rates),
        "step_ms": step_ms,
        "floor_ms": floor_ms,
        "step_over_floor": step_ms["p50"] / floor_ms,
        "forwards": len(stretch.laps.wall_s),
        "tokens": sum(stretch.tokens),
        "fed": stretch.fed,
        "streams_ended": stretch.crowd.num_ended,
        "kv_bytes_per_entry": entry,
        "kv_bytes_per_session": fmean(stretch.used) * entry / num_sessions,
        "held_bytes_per_session": fmean(stretch.held) * entry / num_sessions,
        "store_bytes_per_session": engine.cache.num_entries * entry / num_sessions,
        "held_over_used": fmean(stretch.held) / fmean(stretch.used),
    }
