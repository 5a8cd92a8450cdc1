"""Several inputs at once: every one streams its lines in a lane of one engine."""

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from proactivellm.cli.completed import tell_completed
from proactivellm.cli.live_lines import LiveLine, Speaker
from proactivellm.cli.one_by_one import Settings
from proactivellm.cli.read_ahead import Input, Piece
from proactivellm.cli.stopping import Stops
from proactivellm.modality.text import TextSegmenter
from proactivellm.output.log import Instance
from proactivellm.session.limits import Limits
from proactivellm.stream import Job, Pace, Stream, Streams

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
        inputs: lines by the name of the input; iterated in threads.
        log: instance log to write, in order of completion.
        stops: whether the user wants an end; what was read and written until then is kept.

    Returns:
        Whether it came to the end, and was not interrupted.

    Raises:
        ValueError: at the end, if lines could not be streamed; names them.
    """
    limits = Limits(streams=len(inputs), pending=MAX_PENDING)
    streams = Streams(settings.model, settings.policy, limits, settings.sampling, settings.window)
    failed: list[str] = []
    stops = stops or Stops()
    completed = _run(streams, settings, inputs, failed, stops)
    return tell_completed(completed, streams, failed, log, stops)


def _run(
    streams: Streams,
    settings: Settings,
    inputs: Mapping[str, Iterator[LiveLine]],
    failed: list[str],
    stops: Stops,
) -> Iterator[tuple[str, Instance]]:
    """Steps the engine while there is input; yields finished lines, sleeps when nothing is due.

    When it is stopped, what there is of the lines that are not finished is yielded as well.
    """
    arrived = threading.Event()
    word_s = 60.0 / settings.rate_wpm if settings.rate_wpm else 0.0
    feeds = [_Feed(streams, Input(name, lines, arrived), word_s) for name, lines in inputs.items()]
    num_done = 0
    try:
        while feeds and not stops.came:
            arrived.clear()
            for feed in feeds:
                feed.advance()
            idle = streams.step() is None
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


@dataclass
class _Line:
    """The line of an input that is being streamed."""

    where: str  # file and line number
    stream: Stream
    segmenter: TextSegmenter
    speaker: Speaker
    pace: Pace = field(default_factory=Pace)
    text: list[str] = field(default_factory=list)  # what has arrived, piece by piece
    ends: bool = False  # whether all has arrived
    arrived_s: float = 0.0  # when the last of it arrived, from when the line began

    def receive(self, piece: Piece) -> None:
        """Takes in the next piece."""
        self.text.append(piece.text)
        self.ends = piece.ends
        units = self.segmenter.feed(piece.text)
        if piece.ends:
            units += self.segmenter.finish()
        self.pace.add(self.speaker.stamp(units))
        self.arrived_s = max(time.perf_counter() - self.pace.started_s, self.pace.last_s)

    def push(self, all_of_it: bool = False) -> bool:
        """Pushes what is due, or all of it; whether there is room for more."""
        if not self.stream.closed:
            self.stream.push(self.pace.take(all_of_it), self.arrived_s)
            if self.ends and not self.pace:
                self.stream.close()
        return self.stream.has_room and not self.pace

    def instance(self, index: int) -> Instance:
        """The log entry."""
        source = "".join(self.text).removesuffix("\r")
        return self.stream.instance(Job(index=index, source=source))


@dataclass
class _Feed:
    """An input on its way into the engine, one line at a time."""

    streams: Streams
    input: Input
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
        return self.line.pace.due_s if self.line else math.inf

    def advance(self) -> None:
        """Pushes what is due, and takes more only when all of that was pushed."""
        try:
            while self.line is None or not self.line.ends:
                if self.line and not self.line.push(self.line.stream.finished):
                    return
                piece = self.input.take()
                if piece is None:
                    return
                if self.line is None:
                    self.line = self._begin(piece.where)
                self.line.receive(piece)
            self.line.push(self.line.stream.finished)
        except ValueError as error:
            self._stop(str(error))

    def finish(self, index: int) -> Instance | None:
        """The log entry of the line, if all of it has arrived and its target is complete."""
        line = self.line
        if line is None or not line.stream.ended:
            return None
        if line.stream.error is not None:
            self._stop(f"{line.where}: {line.stream.error}")
            return None
        self.line = None
        return line.instance(index)

    def cut(self, index: int) -> Instance | None:
        """The log entry of what there is of a line, if one has begun."""
        if self.line is None:
            return None
        self.line.push(all_of_it=True)
        self.line.stream.cancel()
        return self.line.instance(index)

    def _begin(self, where: str) -> _Line:
        segmenter = self.streams.segmenter.clone()
        return _Line(where, self.streams.open(), segmenter, Speaker(self.word_s))

    def _stop(self, error: str) -> None:
        self.error = error
        self.input.close()
        if self.line:
            self.line.stream.cancel()
            self.line = None
