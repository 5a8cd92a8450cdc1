"""One source's life in an engine, turn by turn: what arrives, when, what is written, the end."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from proactivellm.core.unit import Unit
from proactivellm.modality.text import TextSegmenter
from proactivellm.output.log import TEXT, Instance
from proactivellm.output.source_units import SourceUnit, joined
from proactivellm.policy.endogenous import statistic_of
from proactivellm.session.events import End, Ending, Event, Probed
from proactivellm.session.isolation import reason
from proactivellm.stream.clock import Clock
from proactivellm.stream.event import StreamEvent
from proactivellm.stream.job import Job
from proactivellm.stream.media import Arrival, Asking, Hearing, Pushed
from proactivellm.stream.telling import is_due, told, turn_edges, turn_over
from proactivellm.stream.transcript import Transcript

if TYPE_CHECKING:
    from proactivellm.stream.streams import Streams

# Text, samples or frames, what is asked between them, or units made of them.
Payload = str | np.ndarray | Asking | Iterable[Unit]


class Stream:
    """One source: `Streams.open` makes it.

    What is pushed waits here until its turn comes and the queue of the lane has room; blocks are
    heard one a step. Every turn is streamed afresh, in a lane of its own. What goes wrong ends this
    source alone.

    Attributes:
        kind: of the source: text, or a modality.
        state: of the lane of this turn, live.
        units: texts of the units that have arrived.
        closed: whether nothing more arrives.
        ended: whether all is written, or it was cancelled, or could not go on.
        error: why it could not go on, if it could not.
        tells_turns: whether there are events of where turns begin and end in the media.
    """

    def __init__(
        self,
        streams: "Streams",
        open_lane: Callable[[], int],
        kind: str,
        clock: Clock,
        hearing: Hearing | None,
        ends_early: bool = False,
    ) -> None:
        self.kind, self.clock = kind, clock
        self.transcript = Transcript(kind)
        self.units: list[SourceUnit] = []
        self.closed = self.ended = False
        self.error: str | None = None
        self._streams, self._open_lane, self._hearing = streams, open_lane, hearing
        self._ends_early = ends_early
        self.tells_turns = hearing is not None and hearing.tells_turns
        self._evidence: float | None = None  # what the last probe saw
        self._ending: Ending | None = None
        self._segmenter: TextSegmenter | None = None
        self._blocks: deque[Pushed] = deque()  # to be heard
        self._waiting: deque[Unit] = deque()
        self._events: deque[StreamEvent] = deque()
        self._arrived_s = self._compute_s = 0.0
        self._kept = self._seen = (
            0  # tokens of moments, and what they were before some were dropped
        )
        self._is_within_turn = False  # whether what has arrived ends within a turn
        self._begin_turn()

    @property
    def finished(self) -> bool:
        """Whether the target of this turn is complete, be it before its source is."""
        return self.ended or self.state.finished

    @property
    def hears(self) -> bool:
        """Whether it takes blocks."""
        return self._hearing is not None

    @property
    def has_room(self) -> bool:
        """Whether the queue of the lane holds all that has arrived; if not, push after a step.

        A block that was not heard yet counts as a unit.
        """
        limit = self._streams.engine.limits.pending or math.inf
        if self.finished:
            return len(self._blocks) <= limit
        return len(self._blocks) + len(self._waiting) + len(self.state.pending) <= limit

    @property
    def wants_more(self) -> bool:
        """Whether all that arrived is read, so that it can only go on with more of the source."""
        state = self.state
        waits = self._blocks or self._waiting or state.pending
        return not (self.closed or waits or state.closed)

    def push(self, payload: Payload, now_s: float | None = None, spent_s: float = 0.0) -> None:
        """Take what arrived next; it is heard, if it is a block, and read in the steps that follow.

        Args:
            payload: text, in any pieces; a block of the media that the stream was opened for, or
                what is asked after those before; or units. A final unit ends a turn.
            now_s: when it arrived, in seconds since the source began; now, if left out. (Of blocks,
                it is what has arrived of them.)
            spent_s: time that it took to make the units.

        Raises:
            ValueError: if the source is closed, or the stream was not opened for such a payload.
            RuntimeError: if another thread uses these streams right now.
        """
        with self._streams.exclusive:
            if self.closed:
                raise ValueError(self.error or "the source is closed: nothing can follow")
            now_s = self.clock.now_s if now_s is None else now_s
            if isinstance(payload, str):
                self._segmenter = self._segmenter or self._streams.segmenter.clone()
                payload = self._segmenter.feed(payload, now_s)
            elif isinstance(payload, np.ndarray | Asking):
                if self._hearing is None:
                    raise ValueError("the stream takes no blocks: open it with a `Hearing`")
                self._blocks.append(payload)
                return
            self._arrive(Arrival(list(payload), now_s, spent_s), spent_s)

    def ask(self, question: str, depth: int | None = None) -> None:
        """Put a question before the text that is pushed, to be thought about at a depth.

        ValueError if the source has begun, or the model does not think so deep.
        """
        with self._streams.exclusive:
            self._segmenter = self._segmenter or self._streams.segmenter.clone()
            self._streams.engine.ask(self.lane, self._segmenter.ask(question), depth)

    def close(self, now_s: float | None = None) -> None:
        """Say that nothing more arrives; idempotent. `now_s` as for `push`."""
        with self._streams.exclusive:
            if self.closed:
                return
            now_s = self.clock.now_s if now_s is None else now_s
            self.closed = True
            if self._hearing is not None:
                self._blocks.append(None)
                return
            if self._segmenter is not None:
                self._arrive(Arrival(self._segmenter.finish(now_s), now_s, 0.0))
            self._end_source(now_s)

    def cancel(self) -> None:
        """End it after its last written token; text that was held back comes out."""
        with self._streams.exclusive:
            if not self.ended:
                self._blocks.clear()
                self._waiting.clear()
                for event in self._streams.engine.cancel(self.lane):
                    self._note(event)
                self.closed = True
                self._end_turn()
                self._streams.forget(self)

    def events(self) -> Iterator[StreamEvent]:
        """What has happened, and, step by step, what happens until all streams wait for input.

        Each event comes as soon as its forward is done. ValueError if the stream cannot go on.
        """
        yield from self.take()
        while not self.ended and self._streams.step() is not None:
            yield from self.take()
        if self.error is not None:
            raise ValueError(self.error)

    def take(self) -> Iterator[StreamEvent]:
        """What has happened since it was last asked; makes no step."""
        while self._events:
            yield self._events.popleft()

    def instance(self, job: Job | None = None) -> Instance:
        """The log entry of all that was written; without a job, of a text of the units arrived."""
        job = job or Job(index=0, source=joined(unit for unit in self.units if unit.text))
        instance = self.transcript.instance(
            job,
            self._streams.engine.policy.spec,
            1000 * self._arrived_s,
            len(self.units),
            None if self.kind == TEXT else 1000 * self._compute_s,
        )
        return replace(instance, kept_share=self._kept / self._seen if self._seen else None)

    def _next_block(self) -> tuple[Hearing, Pushed] | None:
        """What is to be heard next, if anything is."""
        if self._hearing is None or not self._blocks:
            return None
        return self._hearing, self._blocks.popleft()

    def _hear(self, arrival: Arrival | Exception, num_heard: int) -> None:
        """What was made of the block, together with those of so many streams, this one included."""
        if isinstance(arrival, Exception):
            self._blocks.clear()
            self.error = reason(arrival)
            return
        self._arrive(arrival, arrival.spent_s / num_heard)
        if self.closed and not self._blocks:
            self._end_source(arrival.received_s)

    def _end_source(self, now_s: float) -> None:
        if self._is_within_turn:  # it would wait for its last unit forever
            self._arrive(Arrival([Unit.end(now_s)], now_s, 0.0))

    def _arrive(self, arrival: Arrival, share_s: float = 0.0) -> None:
        """Take units in, of whose time this stream pays a share."""
        units, self._arrived_s, spent_s = arrival
        if self.kind != TEXT:
            self.clock.work(self._arrived_s, spent_s)
            self._compute_s += share_s
        if self.tells_turns:
            self._events.extend(turn_edges(self, units))
        self._waiting += units
        for grid in filter(None, (unit.grid for unit in units)):
            if grid.kept is not None:
                self._kept, self._seen = self._kept + grid.seen, self._seen + grid.places
        self.units += [SourceUnit(unit.text, unit.glued) for unit in units if not unit.is_end]
        if units:
            self._is_within_turn = not units[-1].final

    def _feed(self) -> None:
        """Push what waits, up to the end of the turn and as far as the queue has room."""
        limit = self._streams.engine.limits.pending
        while self._waiting and not self.state.closed:
            room = len(self._waiting)
            if limit is not None and not self.state.finished:
                room = min(room, limit - len(self.state.pending))
            turn: list[Unit] = []
            while len(turn) < room and not (turn and turn[-1].final) and is_due(self, len(turn)):
                turn.append(self._waiting.popleft())
            if not turn:
                return
            self._has_begun = True
            self.transcript.arrive(turn)
            try:
                self._streams.engine.push(self.lane, turn)
            except ValueError as error:
                self.error = str(error)
                return

    def _work(self, step_s: float, share_s: float) -> None:
        """A step of its lane ended, which began when the last unit it read had arrived."""
        state = self.state
        arrived_s = self.transcript.arrived_s(state.units_read, state.source_finished)
        self.clock.work(arrived_s, step_s)
        self._compute_s += share_s

    def _note(self, event: Event) -> None:
        if isinstance(event, Probed):
            self._evidence = statistic_of(self._streams.engine.policies[self.lane], event.seen)
        elif isinstance(event, End):
            self._ending = event.how
        elif (news := told(self, event)) is not None:
            self._events.append(news)

    def _settle(self) -> bool:
        """End the turn if it is over; whether it is."""
        state = self.state
        self.error = self.error or state.error
        # The lane was opened for a turn that never came.
        nothing_left = self.closed and not (self._blocks or self._waiting or self._has_begun)
        if state.finished and self._ends_early:  # what is still to come is of no use
            self._blocks.clear()
            self._waiting.clear()
            self.closed = True
        elif self.error is None and not nothing_left and not (state.finished and state.closed):
            return False
        self._end_turn()
        return True

    def _begin_turn(self) -> None:
        self.lane = self._open_lane()
        self.state = self._streams.engine.state(self.lane)
        self._has_begun = False

    def _end_turn(self) -> None:
        """Sum the turn up and release its lane; another one begins unless the source has ended."""
        if self._has_begun:
            self._events.append(turn_over(self))
            self.transcript.end_turn(self.state)
            self._streams.keep(self)
        self._streams.engine.release(self.lane)
        self.closed = self.closed or self.error is not None
        if self.closed and (self.error is not None or not (self._blocks or self._waiting)):
            self.ended = True
        else:
            self._begin_turn()
