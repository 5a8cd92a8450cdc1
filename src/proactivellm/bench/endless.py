"""Suite `window`: a stream without end, young and old, in steps that take turns.

The stream is copied when it is young, and the original goes on; then both advance by turns, so that
whatever else the machine does falls on both.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from proactivellm.bench.measure import Laps, held_entries, memory, percentiles_ms
from proactivellm.bench.workload import Bench, Endless, drawn_units
from proactivellm.core.unit import Unit
from proactivellm.policy.fixed import WaitK
from proactivellm.session.engine import Engine
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window

_MOST_WITHOUT = 2000  # units read without a window, for contrast


@dataclass
class _WatchedLane:
    """A lane that reads a unit and writes a token per step, with its laps."""

    # An engine of its own, not `Streams`: a stream cannot be copied, a lane can.
    engine: Engine
    units: Iterator[Unit]
    laps: Laps
    held: list[int] = field(default_factory=list)  # entries of the pages held after each step

    def advance(self) -> None:
        """One more unit; raises a ValueError if the stream cannot go on."""
        self.engine.push(0, [next(self.units)])
        with self.laps.lap():
            self.engine.step()
        state = self.engine.state(0)
        if state.error is not None:
            raise ValueError(state.error)
        self.held.append(held_entries(self.engine.cache))

    def forget(self) -> None:
        """Starts the measurement anew; the stream goes on."""
        self.laps, self.held = Laps(self.laps.device), []


def run_window(bench: Bench, result: dict[str, Any]) -> None:
    """Measures suite `window`.

    Fills `result` with `windowed` and `unbounded`: step times and memory where the stream is young
    (`near`) and old (`far`), and the ratios far to near.
    """
    size, (near, far) = bench.options.window, bench.options.units
    result["window"] = size
    windows = {"windowed": Window(source=size, target=size), "unbounded": None}
    for name, window in windows.items():
        last = far if window else max(near + 1, min(far, _MOST_WITHOUT))
        try:
            result[name] = _young_and_old(bench, name, window, last)
        except ValueError as error:  # it has reached the last position of the model
            result[name] = {"skipped": str(error)}


def _young_and_old(bench: Bench, name: str, window: Window | None, far: int) -> dict[str, Any]:
    """Both stretches lie around their number of units and hold four renewals of the window."""
    size, near = bench.options.window, bench.options.units[0]
    old = _start(bench.model, bench, window)
    for _ in range(near - size):
        old.advance()
    memory_young = memory(bench.model.device)
    young = _start(bench.model, bench, window)
    young.engine.restore(0, old.engine.snapshot(0))
    for done in range(near - size, far - size):
        old.advance()
        if done % 100 == 0:
            bench.progress(f"window {name}", done, far + size)
    memory_old = memory(bench.model.device)
    young.forget()
    old.forget()
    for _ in range(2 * size):
        young.advance()
        old.advance()
    bench.progress(f"window {name}", far + size, far + size)
    result: dict[str, Any] = {
        "near": _summary(young, near) | memory_young,
        "far": _summary(old, far) | memory_old,
    }
    result["far_over_near"] = {
        key: result["far"][key] / result["near"][key] for key in ("mean_ms", "cpu_ms", "held_bytes")
    }
    return result


def _start(model: Endless, bench: Bench, window: Window | None) -> _WatchedLane:
    engine = Engine(model, WaitK(k=bench.options.k), sampling=Sampling(), window=window)
    engine.open()
    return _WatchedLane(engine, drawn_units(model, bench.options.seed), Laps(model.device))


def _summary(stream: _WatchedLane, units: int) -> dict[str, Any]:
    entry = stream.engine.cache.entry_bytes()
    step_ms = percentiles_ms(stream.laps.wall_s)
    return {
        "units": units,
        "steps": len(stream.laps.wall_s),
        "mean_ms": step_ms["mean"],
        "step_ms": step_ms,
        "cpu_ms": 1000 * fmean(stream.laps.cpu_s),
        "held_entries": max(stream.held),
        "held_bytes": max(stream.held) * entry,
    }
