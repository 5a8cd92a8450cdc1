"""Many recorded sources through one engine, each as if it had been alone."""

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance
from proactivellm.pipeline.transcript import Job, Transcript
from proactivellm.policy.base import Policy
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.state import SessionState
from proactivellm.session.window import Window
from proactivellm.units.text import TextSegmenter
from proactivellm.units.unit import Unit

DEFAULT_RATE_WPM = 150.0  # speaking rate on which `elapsed` is reported
DEFAULT_STREAMS = 16


class StreamsFailed(ValueError):
    """Some sources could not be streamed; the others were."""


@dataclass
class _Running:
    """A stream inside `run_streams`: its clock overlaps listening and computing."""

    job: Job
    units: list[Unit]
    waiting: deque[Unit]
    transcript: Transcript = field(default_factory=Transcript)
    clock_s: float = 0.0

    def tick(self, state: SessionState, step_s: float) -> None:
        """A step of this stream ended: it began when its last unit had arrived."""
        arrival_s = self.units[state.units_read - 1].end_s if state.units_read else 0.0
        self.clock_s = max(self.clock_s, arrival_s) + step_s

    def instance(self, state: SessionState, policy: str) -> Instance:
        """The log entry of the finished stream."""
        source_ms = 1000 * self.units[-1].end_s if self.units else 0.0
        return self.transcript.instance(self.job, policy, state, source_ms, len(self.units))


def push_what_fits(engine: Engine, lane: int, units: deque[Unit]) -> None:
    """Push units as far as the stream's queue has room; decisions do not depend on when.

    Args:
        engine: that holds the stream.
        lane: the stream.
        units: in order; those pushed are taken from it.
    """
    limit = engine.limits.pending
    room = len(units) if limit is None else limit - len(engine.state(lane).pending)
    if units and room > 0:
        engine.push(lane, [units.popleft() for _ in range(min(room, len(units)))])


def run_streams(
    model: StreamingCausalLM,
    policy: Policy,
    jobs: Iterable[Job],
    *,
    limits: Limits | None = None,
    rate_wpm: float = DEFAULT_RATE_WPM,
    sampling: Sampling | None = None,
    window: Window | None = None,
) -> Iterator[Instance]:
    """Stream recorded sources, many at once, as if each had been alone.

    Decisions do not depend on when units are pushed, so that nothing sleeps: arrival times at
    `rate_wpm` enter the clock behind `elapsed`, together with the measured time of every step.

    Args:
        model: the streaming model.
        policy: READ or WRITE.
        jobs: what to stream.
        limits: of the engine; 16 streams at once if left out.
        rate_wpm: words per minute on the clock of `elapsed`.
        sampling: how tokens are chosen; the model's generation settings if left out.
        window: what a stream keeps in view; everything if left out.

    Yields:
        Log entries in order of completion.

    Raises:
        StreamsFailed: at the end, if sources could not be streamed; names them, one a line.
    """
    engine = Engine(model, policy, limits or Limits(streams=DEFAULT_STREAMS), sampling, window)
    segmenter = TextSegmenter(model.tokenizer)
    waiting = iter(jobs)
    running: dict[int, _Running] = {}
    failed: list[str] = []
    while True:
        for job in itertools.islice(waiting, engine.limits.streams - len(running)):
            lane = engine.open(policy=job.policy)
            units = segmenter.segment(job.source, rate_wpm)
            running[lane] = _Running(job, units, deque(units or [Unit.end()]))
        if not running:
            break
        for lane, stream in running.items():
            push_what_fits(engine, lane, stream.waiting)
        _timed_step(engine, running)
        yield from _finished(engine, running, failed)
    if failed:
        raise StreamsFailed("\n".join(failed))


def _timed_step(engine: Engine, running: dict[int, _Running]) -> None:
    """One step, charged to the clocks of the streams that took part."""
    before = {lane: engine.state(lane).forwards for lane in running}
    started = time.perf_counter()
    writes = engine.step() or []
    step_s = time.perf_counter() - started
    for lane, stream in running.items():
        if engine.state(lane).forwards > before[lane]:
            stream.tick(engine.state(lane), step_s)
    for write in writes:
        stream = running[write.lane]
        stream.transcript.add([write], 1000 * stream.clock_s)


def _finished(
    engine: Engine, running: dict[int, _Running], failed: list[str]
) -> Iterator[Instance]:
    """Takes away the streams that have ended; yields the log entries of those that could."""
    for lane, stream in list(running.items()):
        state = engine.state(lane)
        if not state.finished:
            continue
        if state.error is None:
            yield stream.instance(state, engine.policy.spec)
        else:
            failed.append(f"source {stream.job.index}: {state.error}")
        engine.release(lane)
        del running[lane]
