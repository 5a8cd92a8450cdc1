"""Suite `alone`: one stream through this library, and through what one would use without it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from proactivellm.bench.baselines import BaselineRun, offline_generate, reencode_prefix
from proactivellm.bench.measure import Laps, percentiles_ms
from proactivellm.bench.separate_caches import separate_caches
from proactivellm.bench.workload import Bench, Endless, Work, drawn_work
from proactivellm.policy.fixed import WaitK
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Streams

NAMES = {
    "ours": "this library",
    "a": "(a) prefix encoded again, generate",
    "b": "(b) separate caches, merged",
    "c": "(c) offline generate",
}
_LONG_REPEATS = 2  # of the long stream, which baseline (a) takes minutes for


@dataclass(frozen=True)
class OurRun(BaselineRun):
    """One stream, written by this library, with its times."""

    step_s: Sequence[float]  # of every step
    # From the arrival of every unit that allowed a token to the last token it allowed.
    unit_s: Sequence[float]


def run_alone(bench: Bench, result: dict[str, Any]) -> None:
    """Measures suite `alone`.

    Fills `result` with `short` and, if asked for, `long`: what was streamed; counts, times and
    rates of each way of streaming; ratios of rates; whether (b) wrote the same.
    """
    options = bench.options
    result["short"] = {}
    _compare(bench, result["short"], (options.source, options.target), list(NAMES))
    if options.long:
        result["long"] = {}
        _compare(bench, result["long"], (options.long, options.long), ["ours", "a"])


def write_alone(model: Endless, work: Work, k: int) -> OurRun:
    """One stream whose units arrive one by one, each when all before it is written."""
    streams = Streams(model, WaitK(k=k), sampling=Sampling())
    stream = streams.open()
    whole, laps = Laps(model.device), Laps(model.device)
    unit_s: list[float] = []
    state = stream.state
    with whole.lap():
        for unit in work.units:
            # One at a time, so that no step is spared by units that wait together.
            stream.push([unit])
            begun, written = len(laps.wall_s), state.num_written
            while state.num_written != work.num_tokens and laps.time(streams.step) is not None:
                pass
            if state.num_written > written:
                unit_s.append(sum(laps.wall_s[begun:]))
    stream.cancel()
    return OurRun(
        tokens=tuple(state.target[state.num_head :]),
        forwards=streams.engine.forwards,
        fed=state.tokens,
        wall_s=whole.wall_s[0],
        cpu_s=whole.cpu_s[0],
        step_s=laps.wall_s,
        unit_s=unit_s,
    )


def _compare(
    bench: Bench, result: dict[str, Any], size: tuple[int, int], names: Sequence[str]
) -> None:
    """Runs ways of streaming by turns, after an uncounted turn that warms them up."""
    options = bench.options
    num_source, num_target = size
    repeats = options.repeats if num_source != options.long else min(options.repeats, _LONG_REPEATS)
    work = next(drawn_work(bench.model, num_source, num_target, options.seed))
    ways = _ways(bench.model, work, options.k)
    result |= {"source": num_source, "target": num_target, "k": options.k, "runs": {}}
    # By turns, so that whatever else the machine does falls on all of them.
    runs: dict[str, list[BaselineRun]] = {}
    # A few units warm everything up; the long stream would take minutes.
    short = next(drawn_work(bench.model, min(num_source, 9), min(num_target, 9), options.seed))
    for name in names:
        try:
            _ways(bench.model, short, options.k)[name]()
            runs[name] = []
        except ValueError as error:  # a sliding window
            result["runs"][name] = {"name": NAMES[name], "skipped": str(error)}
    for repeat in range(repeats):
        for number, (name, done) in enumerate(runs.items()):
            done.append(ways[name]())
            result["runs"][name] = _summary(NAMES[name], done)
            turns = (repeat * len(runs) + number + 1, repeats * len(runs))
            bench.progress(f"alone {num_source}/{num_target}", *turns)
    rates = {name: result["runs"][name]["tokens_per_cpu_s"] for name in runs}
    result["times_faster_than"] = {n: rates["ours"] / rates[n] for n in runs if n != "ours"}
    if "b" in runs:
        result["same_tokens_as_b"] = runs["ours"][0].tokens == runs["b"][0].tokens


def _ways(model: Endless, work: Work, k: int) -> dict[str, Callable[[], BaselineRun]]:
    """Ways to stream the same, by name."""
    source = [unit.token_ids for unit in work.units]
    assert work.num_tokens is not None
    num_tokens, prompt, phi = work.num_tokens, model.prompt, model.settings.phi
    return {
        "ours": lambda: write_alone(model, work, k),
        "a": lambda: reencode_prefix(model.model, source, prompt, num_tokens, k),
        "b": lambda: separate_caches(model.model, source, prompt, num_tokens, k, phi),
        "c": lambda: offline_generate(model.model, source, prompt, num_tokens),
    }


def _summary(name: str, runs: Sequence[BaselineRun]) -> dict[str, Any]:
    """Counts of the last run, times of all, rates by their median."""
    last = runs[-1]
    wall_s, cpu_s = [run.wall_s for run in runs], [run.cpu_s for run in runs]
    summary: dict[str, Any] = {
        "name": name,
        "tokens": len(last.tokens),
        "forwards": last.forwards,
        "fed": last.fed,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "tokens_per_s": len(last.tokens) / median(wall_s),
        "tokens_per_cpu_s": len(last.tokens) / median(cpu_s),
    }
    ours = [run for run in runs if isinstance(run, OurRun)]
    if ours:
        summary["step_ms"] = percentiles_ms([s for run in ours for s in run.step_s])
        summary["unit_to_write_ms"] = percentiles_ms([s for run in ours for s in run.unit_s])
    return summary
