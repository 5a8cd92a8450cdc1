"""Many recorded sources through one engine, each as if it had been alone."""

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance
from proactivellm.pipeline.media import MediaUnits, open_media
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
    """A source inside `run_streams`: its clock overlaps arriving and computing.

    Units of a text are all there at once; media are taken in as far as their stream wants to read,
    so that they may be of any length.
    """

    job: Job
    arrivals: Iterator[list[Unit]]
    transcript: Transcript
    media: MediaUnits | None = None
    waiting: deque[Unit] = field(default_factory=deque)
    exhausted: bool = False
    num_units: int = 0
    ends_s: list[float] = field(default_factory=list)  # of the units of this turn
    last_s: float = 0.0
    clock_s: float = 0.0
    compute_s: float = 0.0

    def take_in(self) -> bool:
        """Take what arrives next, if nothing waits; whether there is anything to push."""
        while not self.waiting and not self.exhausted:
            units = next(self.arrivals, None)
            if units is None:
                self.exhausted = True
                break
            self.waiting += units
            self.num_units += sum(not unit.is_end for unit in units)
            self.last_s = units[-1].end_s if units else self.last_s
            if self.media is not None:
                self.clock_s = max(self.clock_s, self.media.received_s) + self.media.spent_s
        return bool(self.waiting)

    def tick(self, state: SessionState, step_s: float, share_s: float) -> None:
        """A step of this stream ended: it began when its last unit had arrived."""
        arrival_s = self.ends_s[state.units_read - 1] if state.units_read else 0.0
        if state.source_finished and self.ends_s:
            arrival_s = self.ends_s[-1]
        self.clock_s = max(self.clock_s, arrival_s) + step_s
        self.compute_s += share_s

    def push(self, engine: Engine, lane: int) -> None:
        """Push what arrives, up to the end of the turn, as far as the stream wants to read."""
        state = engine.state(lane)
        while not state.closed and (not state.pending or self.media is None) and self.take_in():
            turn = self._turn(engine.limits.pending, len(state.pending))
            if not turn:
                return
            self.transcript.arrive(turn)
            self.ends_s += [unit.end_s for unit in turn]
            engine.push(lane, turn)

    def end_turn(self, state: SessionState) -> bool:
        """Sum up a turn, and drop what it left unread; whether there is another one."""
        closed = state.closed
        while not closed and self.take_in():
            closed = self.waiting.popleft().final
        self.transcript.end_turn(state)
        self.ends_s = []
        return self.take_in()

    def instance(self, policy: str) -> Instance:
        """The log entry of the finished source."""
        total_s = self.last_s if self.media is None else self.media.received_s
        compute_ms = None
        if self.media is not None:
            compute_ms = 1000 * (self.compute_s + self.media.compute_s)
        return self.transcript.instance(
            self.job, policy, 1000 * total_s, self.num_units, compute_ms
        )

    def _turn(self, limit: int | None, num_pending: int) -> list[Unit]:
        """What waits, up to the end of the turn and to what the queue holds."""
        room = len(self.waiting) if limit is None else limit - num_pending
        turn: list[Unit] = []
        while self.waiting and len(turn) < room and not (turn and turn[-1].final):
            turn.append(self.waiting.popleft())
        return turn


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
    waiting = iter(jobs)
    running: dict[int, _Running] = {}
    failed: list[str] = []
    while True:
        for job in itertools.islice(waiting, engine.limits.streams - len(running)):
            lane = engine.open(policy=job.policy)
            running[lane] = _open(model, job, rate_wpm)
        if not running:
            break
        for lane, stream in running.items():
            stream.push(engine, lane)
        _timed_step(engine, running)
        yield from _finished(engine, running, failed)
    if failed:
        raise StreamsFailed("\n".join(failed))


def _open(model: StreamingCausalLM, job: Job, rate_wpm: float) -> _Running:
    if job.media:
        media = open_media(model, job.media, job.source, job.replay)
        return _Running(job, iter(media), Transcript(media.kind), media)
    units = TextSegmenter(model.tokenizer).segment(job.source, rate_wpm) or [Unit.end()]
    return _Running(job, iter([units]), Transcript())


def source_turns(model: StreamingCausalLM, job: Job) -> list[list[Unit]]:
    """All units of a source at once, turn by turn; a text is one turn.

    Args:
        model: tokenises, or takes in media.
        job: the source.

    Returns:
        The units of each turn, without bare end markers.
    """
    turns: list[list[Unit]] = []
    begins = True
    for arrived in _open(model, job, DEFAULT_RATE_WPM).arrivals:
        for unit in arrived:
            if begins:
                turns.append([])
            turns[-1] += [] if unit.is_end else [unit]
            begins = unit.final
    return turns


def _timed_step(engine: Engine, running: dict[int, _Running]) -> None:
    """One step, charged to the clocks of the streams that took part."""
    before = {lane: engine.state(lane).forwards for lane in running}
    started = time.perf_counter()
    events = engine.step() or []
    step_s = time.perf_counter() - started
    took_part = [lane for lane in running if engine.state(lane).forwards > before[lane]]
    for lane in took_part:
        running[lane].tick(engine.state(lane), step_s, step_s / len(took_part))
    for event in events:
        stream = running[event.lane]
        stream.transcript.add([event], 1000 * stream.clock_s)


def _finished(
    engine: Engine, running: dict[int, _Running], failed: list[str]
) -> Iterator[Instance]:
    """Takes away the streams that have ended; yields the log entries of those that could.

    Media that go on after a turn go on in a fresh stream.
    """
    for lane, stream in list(running.items()):
        state = engine.state(lane)
        if state.error is not None:
            failed.append(f"source {stream.job.index}: {state.error}")
        elif not state.finished and not (stream.exhausted and not state.closed):
            continue  # (media in which there is nothing are exhausted before they begin)
        del running[lane]
        goes_on = state.error is None and stream.end_turn(state)
        engine.release(lane)
        if goes_on:
            running[engine.open(policy=stream.job.policy)] = stream
        elif state.error is None:
            yield stream.instance(engine.policy.spec)
