"""Several inputs at once: every one streams its lines in a lane of one engine."""

import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from proactivellm.cli.display import NamedTargets
from proactivellm.cli.inputs import Input, Piece
from proactivellm.cli.live import LiveLine, Speaker
from proactivellm.cli.stopping import Stops
from proactivellm.cli.stream import Settings, summarize
from proactivellm.files.lines import open_lines
from proactivellm.output.log import Instance, write_instance
from proactivellm.pipeline import Job, Transcript, push_what_fits
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.state import SessionState
from proactivellm.units.text import TextSegmenter
from proactivellm.units.unit import Unit

MAX_PENDING = 256  # units that a stream has been pushed and has not read


def stream_inputs(
    settings: Settings,
    inputs: Mapping[str, Iterator[LiveLine]],
    log: Path | None = None,
    stops: Stops | None = None,
) -> bool:
    """Streams all inputs at once, each its lines one after the other, and sums up.

    An input ends with the first of its lines that cannot be streamed; the others go on.

    Args:
        settings: how they are streamed.
        inputs: lines by the name of the input; iterated in threads.
        log: instance log to write, in order of completion.
        stops: whether the user wants an end; what was read and written until then is kept.

    Returns:
        Whether it came to the end, and was not interrupted.

    Raises:
        ValueError: at the end, if lines could not be streamed; names them.
    """
    limits = Limits(streams=len(inputs), pending=MAX_PENDING)
    engine = Engine(settings.model, settings.policy, limits, settings.sampling, settings.window)
    display = NamedTargets()
    failed: list[str] = []
    done: list[Instance] = []
    stops = stops or Stops()
    with open_lines(log) as file, stops.noting():
        for name, instance in _run(engine, settings, inputs, failed, stops):
            done.append(instance)
            display.show(name, instance)
            if file:
                write_instance(file, instance)
    display.summary(summarize(done, steps=engine.forwards))
    if failed:
        raise ValueError("\n".join(failed))
    return not stops.came


def _run(
    engine: Engine,
    settings: Settings,
    inputs: Mapping[str, Iterator[LiveLine]],
    failed: list[str],
    stops: Stops,
) -> Iterator[tuple[str, Instance]]:
    """Steps the engine while there is input; yields finished lines, sleeps when nothing is due.

    When it is stopped, what there is of the lines that are not finished is yielded as well.
    """
    arrived = threading.Event()
    segmenter = TextSegmenter(settings.model.tokenizer)
    word_s = 60.0 / settings.rate_wpm if settings.rate_wpm else 0.0
    feeds = [
        _Feed(engine, Input(name, lines, arrived), segmenter.clone(), word_s)
        for name, lines in inputs.items()
    ]
    num_done = 0
    try:
        while feeds and not stops.came:
            arrived.clear()
            for feed in feeds:
                feed.advance()
            idle = _step(engine, feeds)
            for feed in feeds:
                if instance := feed.finish(num_done):
                    num_done += 1
                    idle = False
                    yield feed.input.name, instance
            failed += [feed.error for feed in feeds if feed.error]
            feeds = [feed for feed in feeds if not feed.ended]
            if idle and feeds:
                due_s = min(feed.due_s for feed in feeds) - time.perf_counter()
                with suppress(KeyboardInterrupt), stops.waiting():
                    arrived.wait(None if due_s == math.inf else max(0.0, due_s))
        for feed in feeds:
            if instance := feed.cut(num_done):
                num_done += 1
                yield feed.input.name, instance
    finally:
        for feed in feeds:
            feed.input.close()


def _step(engine: Engine, feeds: Iterable["_Feed"]) -> bool:
    """One step, noted in the lines that wrote; whether there was nothing to do."""
    lines = {feed.line.lane: feed.line for feed in feeds if feed.line}
    events = engine.step()
    for event in events or ():
        line = lines[event.lane]
        line.transcript.add([event], 1000 * line.now_s)
    return events is None


@dataclass
class _Line:
    """The line of an input that is being streamed; times are seconds from when it began.

    Attributes:
        where: file and line number.
        lane: of the engine.
        speaker: says when its words are due.
        started_s: when it began, on the clock of the process.
        text: what has arrived, piece by piece.
        waiting: units that are not due.
        due: units that are, for which the stream's queue had no room.
        ends: whether all has arrived.
        arrived_s: when the last of it arrived.
        transcript: what was written.
    """

    where: str
    lane: int
    speaker: Speaker
    started_s: float = field(default_factory=time.perf_counter)
    text: list[str] = field(default_factory=list)
    waiting: deque[Unit] = field(default_factory=deque)
    due: deque[Unit] = field(default_factory=deque)
    ends: bool = False
    arrived_s: float = 0.0
    transcript: Transcript = field(default_factory=Transcript)

    @property
    def now_s(self) -> float:
        return time.perf_counter() - self.started_s

    def receive(self, piece: Piece, segmenter: TextSegmenter) -> None:
        """Takes in the next piece."""
        self.text.append(piece.text)
        self.ends = piece.ends
        units = segmenter.feed(piece.text)
        if piece.ends:
            units += segmenter.finish() or [Unit.end()]
        self.waiting += self.speaker.stamp(units)
        spoken_s = self.waiting[-1].end_s if self.waiting else 0.0
        self.arrived_s = max(self.now_s, spoken_s)

    def push(self, engine: Engine) -> bool:
        """Pushes what is due, unless the target is complete; whether nothing is left to push."""
        if engine.state(self.lane).finished:
            self.due.clear()
            self.waiting.clear()
            return True
        now_s = self.now_s
        while self.waiting and self.waiting[0].end_s <= now_s:
            self.due.append(self.waiting.popleft())
        push_what_fits(engine, self.lane, self.due)
        return not (self.due or self.waiting)

    def instance(self, index: int, state: SessionState, policy: str) -> Instance:
        """The log entry of the finished line."""
        job = Job(index=index, source="".join(self.text).removesuffix("\r"))
        num_units = self.speaker.num_words
        self.transcript.end_turn(state)
        return self.transcript.instance(job, policy, 1000 * self.arrived_s, num_units)


@dataclass
class _Feed:
    """An input on its way into the engine, one line at a time."""

    engine: Engine
    input: Input
    segmenter: TextSegmenter
    word_s: float
    line: _Line | None = None
    error: str | None = None

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to do."""
        return self.input.ended and self.line is None

    @property
    def due_s(self) -> float:
        """When its next word is due, on the clock of the process."""
        if self.line is None or not self.line.waiting:
            return math.inf
        return self.line.started_s + self.line.waiting[0].end_s

    def advance(self) -> None:
        """Pushes what is due, and takes more only when all of that was pushed."""
        try:
            while self.line is None or (self.line.push(self.engine) and not self.line.ends):
                piece = self.input.take()
                if piece is None:
                    return
                if self.line is None:
                    self.line = _Line(piece.where, self.engine.open(), Speaker(self.word_s))
                self.line.receive(piece, self.segmenter)
        except ValueError as error:
            self._stop(str(error))

    def finish(self, index: int) -> Instance | None:
        """The log entry of the line, if all of it has arrived and its target is complete."""
        line = self.line
        if line is None or not (state := self.engine.state(line.lane)).finished:
            return None
        if state.error is not None:
            self._stop(f"{line.where}: {state.error}")
            return None
        if not line.ends:  # the target ended early: the rest of the line is still to be taken
            return None
        instance = line.instance(index, state, self.engine.policy.spec)
        self._release()
        return instance

    def cut(self, index: int) -> Instance | None:
        """The log entry of what there is of a line, if one has begun."""
        if self.line is None or self.engine.state(self.line.lane).error is not None:
            return None
        state = self.engine.state(self.line.lane)
        return self.line.instance(index, state, self.engine.policy.spec)

    def _stop(self, error: str) -> None:
        self.error = error
        self.input.close()
        self._release()

    def _release(self) -> None:
        if self.line:
            self.engine.release(self.line.lane)
            self.line = None
