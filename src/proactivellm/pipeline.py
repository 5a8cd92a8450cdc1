"""The main path: source text -> units -> session -> stable text -> instance.

Two ways through the same loop: one live stream as events, many recorded sources as instances.
"""

import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance
from proactivellm.policy.base import Policy
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.state import SessionState, Write
from proactivellm.session.window import Window
from proactivellm.units.text import TextSegmenter
from proactivellm.units.unit import Unit

DEFAULT_RATE_WPM = 150.0  # speaking rate on which `elapsed` is reported
DEFAULT_STREAMS = 16


@dataclass(frozen=True, kw_only=True)
class Job:
    """One source to stream.

    Attributes:
        index: place in its file.
        source: source text.
        reference: wanted target, if known.
    """

    index: int
    source: str
    reference: str | None = None


@dataclass(frozen=True)
class StreamEvent:
    """What happened in a live stream.

    Attributes:
        kind: READ (a unit arrived and was read) or WRITE (text became certain).
        text: the unit's text or the new target text.
        units_read: source units read so far.
        elapsed_s: seconds since the stream began.
    """

    kind: Literal["READ", "WRITE"]
    text: str
    units_read: int
    elapsed_s: float


@dataclass
class Transcript:
    """Target text with, for every piece, what had been read and when it came.

    Attributes:
        pieces: (text, units read, ms) in order.
        token_delays: units read when each token was predicted.
    """

    pieces: list[tuple[str, int, float]] = field(default_factory=list)
    token_delays: list[int] = field(default_factory=list)

    def add(self, writes: Iterable[Write], elapsed_ms: float) -> None:
        """Note what was written.

        Args:
            writes: events of one step.
            elapsed_ms: when the step ended.
        """
        for write in writes:
            if write.text:
                self.pieces.append((write.text, write.units_read, elapsed_ms))
            if write.token_id is not None:
                self.token_delays.append(write.units_read)

    def words(self) -> tuple[list[int], list[float]]:
        """Delay in units and time in ms of every word, taken at its last character."""
        delays: list[int] = []
        elapsed: list[float] = []
        inside = False
        for text, units, at_ms in self.pieces:
            for character in text:
                if character.isspace():
                    inside = False
                    continue
                if not inside:
                    delays.append(units)
                    elapsed.append(at_ms)
                    inside = True
                delays[-1], elapsed[-1] = units, round(at_ms, 3)
        return delays, elapsed

    def instance(self, job: Job, policy: str, state: SessionState, source_ms: float) -> Instance:
        """The log entry of a finished stream.

        Args:
            job: what was streamed.
            policy: canonical spec.
            state: of the finished stream.
            source_ms: when the whole source had arrived.

        Returns:
            The entry.
        """
        delays, elapsed = self.words()
        prediction = "".join(text for text, _, _ in self.pieces)
        return Instance(
            index=job.index,
            source=job.source,
            source_length=state.units_read,
            prediction=prediction,
            prediction_length=len(delays),
            reference=job.reference,
            delays=delays,
            elapsed=elapsed,
            token_delays=self.token_delays,
            policy=policy,
            forwards=state.forwards,
            tokens=state.tokens,
            first_token_ms=elapsed[0] if elapsed else None,
            source_ms=round(source_ms, 3),
            dropped_units=state.dropped_units,
            dropped_tokens=state.dropped_tokens,
        )


def stream_units(
    model: StreamingCausalLM,
    policy: Policy,
    arrivals: Iterable[Sequence[Unit]],
    sampling: Sampling | None = None,
    window: Window | None = None,
) -> Generator[StreamEvent, None, Instance]:
    """Stream one source live: units are there as the iterable yields them.

    Args:
        model: the streaming model.
        policy: READ or WRITE.
        arrivals: units that arrive together; may block until they do. Closed when exhausted.
        sampling: how tokens are chosen; the model's generation settings if left out.
        window: what the stream keeps in view; everything if left out.

    Yields:
        READ and WRITE events as they happen.

    Returns:
        The log entry (value of the generator).
    """
    session = Session(model, policy, sampling, window)
    transcript, words = Transcript(), _Words()
    started = time.perf_counter()
    arrived_ms = 0.0

    def elapsed_ms() -> float:
        return 1000 * (time.perf_counter() - started)

    for units in itertools.chain(arrivals, [None]):
        if units is None and session.state.closed:
            break
        arrived_ms = elapsed_ms()
        units = [Unit.end()] if units is None else units
        words.arrived += [unit.text for unit in units if not unit.is_end]
        for write in session.advance(units):
            now_ms = elapsed_ms()
            yield from words.read(write.units_read, now_ms)
            transcript.add([write], now_ms)
            if write.text:
                yield StreamEvent("WRITE", write.text, write.units_read, now_ms / 1000)
        yield from words.read(session.state.units_read, elapsed_ms())
    job = Job(index=0, source=" ".join(word for word in words.arrived if word))
    return transcript.instance(job, policy.spec, session.state, arrived_ms)


@dataclass
class _Words:
    """The source words of a stream: how many arrived, and how many were told to be read."""

    arrived: list[str] = field(default_factory=list)
    num_read: int = 0

    def read(self, units_read: int, elapsed_ms: float) -> Iterator[StreamEvent]:
        """READ events up to a unit."""
        for index in range(self.num_read, units_read):
            self.num_read = index + 1
            if self.arrived[index]:
                yield StreamEvent("READ", self.arrived[index], self.num_read, elapsed_ms / 1000)


def stream_text(
    model: StreamingCausalLM,
    policy: Policy,
    source: str,
    *,
    rate_wpm: float | None = None,
    sampling: Sampling | None = None,
    window: Window | None = None,
) -> Generator[StreamEvent, None, Instance]:
    """Stream one line of text, word by word, at a rate.

    Args:
        model: the streaming model.
        policy: READ or WRITE.
        source: the text.
        rate_wpm: words per minute at which they arrive; None = at once.
        sampling: how tokens are chosen; the model's generation settings if left out.
        window: what the stream keeps in view; everything if left out.

    Yields:
        READ and WRITE events as they happen.

    Returns:
        The log entry (value of the generator).
    """
    arrivals = paced([TextSegmenter(model.tokenizer).segment(source, rate_wpm)])
    return (yield from stream_units(model, policy, arrivals, sampling, window))


def paced(arrivals: Iterable[Sequence[Unit]]) -> Iterator[list[Unit]]:
    """Hold units back until they are due.

    Args:
        arrivals: units with `end_s` set, in order.

    Yields:
        Units that are due, none of them before `end_s` seconds after the first was asked for.
    """
    started = time.perf_counter()
    for units in arrivals:
        rest = list(units)
        while rest:
            wait_s = rest[0].end_s - (time.perf_counter() - started)
            if wait_s > 0:
                time.sleep(wait_s)
            now_s = time.perf_counter() - started
            due = 1 + sum(unit.end_s <= now_s for unit in rest[1:])
            yield rest[:due]
            del rest[:due]


@dataclass
class _Running:
    """A stream inside `run_streams`: its clock overlaps listening and computing."""

    job: Job
    units: list[Unit]
    transcript: Transcript = field(default_factory=Transcript)
    clock_s: float = 0.0

    def tick(self, state: SessionState, step_s: float) -> None:
        """A step of this stream ended: it began when its last unit had arrived."""
        arrival_s = self.units[state.units_read - 1].end_s if state.units_read else 0.0
        self.clock_s = max(self.clock_s, arrival_s) + step_s

    def instance(self, state: SessionState, policy: str) -> Instance:
        """The log entry of the finished stream."""
        source_ms = 1000 * self.units[-1].end_s if self.units else 0.0
        return self.transcript.instance(self.job, policy, state, source_ms)


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
        ValueError: at the end, if sources could not be streamed; names them.
    """
    engine = Engine(model, policy, limits or Limits(streams=DEFAULT_STREAMS), sampling, window)
    segmenter = TextSegmenter(model.tokenizer)
    waiting = iter(jobs)
    running: dict[int, _Running] = {}
    failed: list[str] = []
    while True:
        for job in itertools.islice(waiting, engine.limits.streams - len(running)):
            lane = engine.open()
            running[lane] = _Running(job, segmenter.segment(job.source, rate_wpm))
            engine.push(lane, running[lane].units or [Unit.end()])
        if not running:
            break
        _timed_step(engine, running)
        for lane, stream in list(running.items()):
            state = engine.state(lane)
            if not state.finished:
                continue
            if state.error is None:
                yield stream.instance(state, policy.spec)
            else:
                failed.append(f"source {stream.job.index}: {state.error}")
            engine.release(lane)
            del running[lane]
    if failed:
        raise ValueError("\n".join(failed))


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
