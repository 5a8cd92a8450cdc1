"""One live stream: units come in as they arrive, events go out as they happen."""

import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance
from proactivellm.pipeline.transcript import Job, Transcript
from proactivellm.policy.base import Policy
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.session.window import Window
from proactivellm.units.text import TextSegmenter
from proactivellm.units.unit import Unit


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
        arrivals: units that arrive together; may block until they do. The source is closed when
            they are exhausted; no more are asked for when the target has ended before.
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
        if session.state.finished and not session.state.closed:
            break  # the target ended before the source: what is still to come is not waited for
    job = Job(index=0, source=" ".join(word for word in words.arrived if word))
    return transcript.instance(job, policy.spec, session.state, arrived_ms, len(words.arrived))


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
