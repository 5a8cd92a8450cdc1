"""The main path: source text -> units -> session -> stable text -> instance.

Two ways through the same loop: one live stream as events, many recorded sources as instances.
"""

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance
from proactivellm.policy.base import Policy
from proactivellm.session.batch import Batch
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.state import SessionState, Write
from proactivellm.units.text import TextSegmenter
from proactivellm.units.unit import Unit

DEFAULT_RATE_WPM = 150.0  # speaking rate on which `elapsed` is reported


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


@dataclass(frozen=True, kw_only=True)
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
    """

    pieces: list[tuple[str, int, float]] = field(default_factory=list)

    def add(self, writes: Iterable[Write], elapsed_ms: float) -> None:
        """Note what was written.

        Args:
            writes: events of one step.
            elapsed_ms: when the step ended.
        """
        self.pieces += [(w.text, w.units_read, elapsed_ms) for w in writes if w.text]

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
            token_delays=list(state.delays),
            policy=policy,
            forwards=state.forwards,
            tokens=state.tokens,
            first_token_ms=elapsed[0] if elapsed else None,
            source_ms=round(source_ms, 3),
        )


def stream_units(
    model: StreamingCausalLM,
    policy: Policy,
    units: Iterable[Unit],
    sampling: Sampling | None = None,
) -> Generator[StreamEvent, None, Instance]:
    """Stream one source live: units are read as the iterable yields them.

    Args:
        model: the streaming model.
        policy: READ or WRITE.
        units: may block until each unit arrives; closed when exhausted.
        sampling: how tokens are chosen; the model's generation settings if left out.

    Yields:
        READ and WRITE events as they happen.

    Returns:
        The log entry (value of the generator).
    """
    session = Session(model, policy, sampling)
    transcript = Transcript()
    words: list[str] = []
    started = time.perf_counter()
    arrived_ms = 0.0
    for unit in _closed(units):
        arrived_ms = 1000 * (time.perf_counter() - started)
        if unit.text:
            words.append(unit.text)
            yield StreamEvent(
                kind="READ", text=unit.text, units_read=len(words), elapsed_s=arrived_ms / 1000
            )
        for write in session.advance(unit):
            elapsed_ms = 1000 * (time.perf_counter() - started)
            transcript.add([write], elapsed_ms)
            if write.text:
                yield StreamEvent(
                    kind="WRITE",
                    text=write.text,
                    units_read=write.units_read,
                    elapsed_s=elapsed_ms / 1000,
                )
    job = Job(index=0, source=" ".join(words))
    return transcript.instance(job, policy.spec, session.state, arrived_ms)


def stream_text(
    model: StreamingCausalLM,
    policy: Policy,
    source: str,
    *,
    rate_wpm: float | None = None,
    sampling: Sampling | None = None,
) -> Generator[StreamEvent, None, Instance]:
    """Stream one line of text, word by word, at a rate.

    Args:
        model: the streaming model.
        policy: READ or WRITE.
        source: the text.
        rate_wpm: words per minute at which they arrive; None = at once.
        sampling: how tokens are chosen; the model's generation settings if left out.

    Yields:
        READ and WRITE events as they happen.

    Returns:
        The log entry (value of the generator).
    """
    units = paced(TextSegmenter(model.tokenizer).segment(source, rate_wpm))
    return (yield from stream_units(model, policy, units, sampling))


def paced(units: Iterable[Unit]) -> Iterator[Unit]:
    """Yield units when they are due.

    Args:
        units: with `end_s` set.

    Yields:
        The units, each no earlier than `end_s` after the first was asked for.
    """
    started = time.perf_counter()
    for unit in units:
        wait_s = unit.end_s - (time.perf_counter() - started)
        if wait_s > 0:
            time.sleep(wait_s)
        yield unit


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
    num_lanes: int = 16,
    rate_wpm: float = DEFAULT_RATE_WPM,
    sampling: Sampling | None = None,
) -> Iterator[Instance]:
    """Stream recorded sources, many at once, as if each had been alone.

    Decisions do not depend on when units are pushed, so that nothing sleeps: arrival times at
    `rate_wpm` enter the clock behind `elapsed`, together with the measured time of every step.

    Args:
        model: the streaming model.
        policy: READ or WRITE.
        jobs: what to stream.
        num_lanes: streams advanced by one forward.
        rate_wpm: words per minute on the clock of `elapsed`.
        sampling: how tokens are chosen; the model's generation settings if left out.

    Yields:
        Log entries in order of completion.
    """
    batch = Batch(model, policy, num_lanes, sampling)
    segmenter = TextSegmenter(model.tokenizer)
    waiting = iter(jobs)
    running: dict[int, _Running] = {}
    while True:
        for job in islice(waiting, num_lanes - len(running)):
            lane = batch.open()
            running[lane] = _Running(job, segmenter.segment(job.source, rate_wpm))
            batch.push(lane, running[lane].units or [Unit.end()])
        if not running:
            return
        _timed_step(batch, running)
        for lane, stream in list(running.items()):
            if batch.state(lane).finished:
                yield stream.instance(batch.state(lane), policy.spec)
                batch.release(lane)
                del running[lane]


def _timed_step(batch: Batch, running: dict[int, _Running]) -> None:
    """One step, charged to the clocks of the streams that took part."""
    before = {lane: batch.state(lane).forwards for lane in running}
    started = time.perf_counter()
    writes = batch.step() or []
    step_s = time.perf_counter() - started
    for lane, stream in running.items():
        if batch.state(lane).forwards > before[lane]:
            stream.tick(batch.state(lane), step_s)
        mine = [write for write in writes if write.lane == lane]
        stream.transcript.add(mine, 1000 * stream.clock_s)


def _closed(units: Iterable[Unit]) -> Iterator[Unit]:
    """The units, then a bare end marker unless the last one was final."""
    final = False
    for unit in units:
        final = unit.final
        yield unit
    if not final:
        yield Unit.end()
