"""One live stream: units come in as they arrive, events go out as they happen."""

import functools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.output.log import TEXT, Instance
from proactivellm.pipeline.media import MediaUnits
from proactivellm.pipeline.transcript import Job, Transcript
from proactivellm.policy.base import Policy
from proactivellm.policy.reason import Reason
from proactivellm.session.events import Read, Write
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.window import Window
from proactivellm.units.text import TextSegmenter
from proactivellm.units.unit import Unit


class StreamCut(Exception):
    """Thrown into `stream_units`: what was read and written until then is the log entry."""


@dataclass(frozen=True)
class StreamEvent:
    """What happened in a live stream.

    Attributes:
        kind: READ (a unit arrived and was read) or WRITE (text became certain).
        text: the unit's text or the new target text.
        units_read: source units read so far.
        elapsed_s: seconds since the stream began.
        media_s: seconds of the media that had arrived; None for text.
        reason: why it was read or written; None of text that a cut let out.
    """

    kind: Literal["READ", "WRITE"]
    text: str
    units_read: int
    elapsed_s: float
    media_s: float | None = None
    reason: Reason | None = None


def stream_units(
    model: StreamingCausalLM,
    policy: Policy,
    arrivals: Iterable[Sequence[Unit]],
    sampling: Sampling | None = None,
    window: Window | None = None,
) -> Generator[StreamEvent, None, Instance]:
    """Stream one source live: units are there as the iterable yields them.

    A final unit ends a turn; what follows it goes on in a fresh session.

    Args:
        model: the streaming model.
        policy: READ or WRITE.
        arrivals: units that arrive together (of media: a `MediaUnits`); may block until they do.
            The source is closed when they are exhausted; no more are asked for when the target of
            a text has ended before.
        sampling: how tokens are chosen; the model's generation settings if left out.
        window: what the stream keeps in view; everything if left out.

    Yields:
        READ and WRITE events as they happen.

    Returns:
        The log entry (value of the generator).
    """
    live = _Live(functools.partial(Session, model, policy, sampling, window), arrivals)
    try:
        for units in arrivals:
            yield from live.advance(units)
            if live.ended_early:
                break  # what is still to come is not waited for
        yield from live.advance([Unit.end()] * live.is_open)
    except StreamCut:
        pass
    return live.instance(policy)


class _Live:
    """The session of the turn that goes on, and what all of them wrote."""

    def __init__(self, open_session: Callable[[], Session], arrivals: object) -> None:
        self.media = arrivals if isinstance(arrivals, MediaUnits) else None
        self.transcript = Transcript(self.media.kind if self.media else TEXT)
        self.words: list[str] = []  # text of the units that arrived
        self._num_before = 0  # of them, in turns that are over
        self._open_session = open_session
        self._session: Session | None = None
        self._started_s = time.perf_counter()
        self._arrived_ms = self._compute_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the turn that goes on waits for more of its source."""
        return self._session is not None and not self._session.state.closed

    @property
    def ended_early(self) -> bool:
        """Whether the target of a text is complete before its source is."""
        return self.is_open and self._session.state.finished and self.media is None  # type: ignore

    @property
    def _now_ms(self) -> float:
        return 1000 * (time.perf_counter() - self._started_s)

    def advance(self, units: Sequence[Unit]) -> Iterator[StreamEvent]:
        """Read what arrived, and write what it allows; a final unit ends its turn."""
        self._arrived_ms = self._now_ms
        for turn in _turns(units):
            session = self._session = self._session or self._open_session()
            self.words += [unit.text for unit in turn if not unit.is_end]
            self.transcript.arrive(turn)
            events, started = session.advance(turn), time.perf_counter()
            while (event := next(events, None)) is not None:
                self._compute_s += time.perf_counter() - started
                if isinstance(event, Read):
                    yield from self._read(event)
                elif isinstance(event, Write):
                    yield from self._written(event)
                started = time.perf_counter()
            self._compute_s += time.perf_counter() - started
            if session.state.closed:
                self._end_turn(session)

    def instance(self, policy: Policy) -> Instance:
        """The log entry."""
        if self._session is not None:
            self._end_turn(self._session)
        job = Job(index=0, source=" ".join(word for word in self.words if word))
        if self.media is None:
            return self.transcript.instance(job, policy.spec, self._arrived_ms, len(self.words))
        compute_ms = 1000 * (self._compute_s + self.media.compute_s)
        duration_ms = 1000 * self.media.received_s
        return self.transcript.instance(job, policy.spec, duration_ms, compute_ms=compute_ms)

    def _read(self, read: Read) -> Iterator[StreamEvent]:
        if read.unit.text:
            number, now_s = self._num_before + read.units_read, self._now_ms / 1000
            yield StreamEvent("READ", read.unit.text, number, now_s, reason=read.reason)

    def _written(self, write: Write) -> Iterator[StreamEvent]:
        now_ms = self._now_ms
        if text := self.transcript.add([write], now_ms):
            media_s = None if self.media is None else self.transcript.pieces[-1][1] / 1000
            why = write.reason
            yield StreamEvent("WRITE", text, write.units_read, now_ms / 1000, media_s, why)

    def _end_turn(self, session: Session) -> None:
        self.transcript.end_turn(session.state)
        self._session, self._num_before = None, len(self.words)


def _turns(units: Iterable[Unit]) -> Iterator[list[Unit]]:
    """Cuts units after each that is final."""
    turn: list[Unit] = []
    for unit in units:
        turn.append(unit)
        if unit.final:
            yield turn
            turn = []
    if turn:
        yield turn


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
