"""Many recorded sources through one engine, each as if it had been alone."""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator

from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.sentences import segmenter_for
from proactivellm.output.log import Instance
from proactivellm.policy.base import Policy
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window
from proactivellm.stream.clock import ArrivalClock
from proactivellm.stream.fork import fork
from proactivellm.stream.job import Job
from proactivellm.stream.media import Arrival, open_media, opening_question
from proactivellm.stream.source import Stream
from proactivellm.stream.streams import Streams

DEFAULT_RATE_WPM = 150.0  # speaking rate on which `elapsed` is reported
DEFAULT_STREAMS = 16


class StreamsFailed(ValueError):
    """Some sources could not be streamed; the others were."""


class Recorded:
    """A source on its way into its stream, as far as the stream wants to read: it may be long."""

    def __init__(self, streams: Streams, job: Job, rate_wpm: float) -> None:
        self.job = job
        model = streams.engine.model
        self._arrivals = _arrivals(model, job, rate_wpm)
        self.stream = streams.open(job.kind, clock=ArrivalClock(job.step_s), policy=job.policy)
        if opening := opening_of(model, job):
            streams.engine.ask(self.stream.lane, opening)

    def fork(self) -> Callable[[Policy], "Recorded"]:
        """What begins another source that goes on from here under another policy (`Stream.fork`).

        To be called once.
        """
        self._arrivals, arrivals = itertools.tee(self._arrivals)
        begin = fork(self.stream)

        def go_on(policy: Policy) -> Recorded:
            twin = copy.copy(self)
            twin._arrivals, twin.stream = arrivals, begin(policy)
            return twin

        return go_on

    def feed(self) -> None:
        """Push what arrives next."""
        while self.stream.wants_more:
            arrival = next(self._arrivals, None)
            if arrival is None:
                self.stream.close()
            else:
                self.stream.push(*arrival)


def opening_of(model: StreamingCausalLM, job: Job) -> list[int]:
    """What is read before all units: a question to a video, or to what is thought about."""
    if job.media:
        return opening_question(model, job.source)
    question, _ = job.asked
    return segmenter_for(model).ask(question) if question and model.thinking else []


def _arrivals(model: StreamingCausalLM, job: Job, rate_wpm: float) -> Iterator[Arrival]:
    """What a source consists of; the units of a text are all there at once."""
    if not job.media:
        segmenter = segmenter_for(model)
        text = job.source
        if model.thinking:
            question, text = job.asked
            segmenter.ask(question)
        units = segmenter.segment(text, rate_wpm)
        yield Arrival(units, units[-1].end_s if units else 0.0, 0.0)
        return
    media = open_media(model, job.media, job.source, job.replay)
    for units in media:
        yield Arrival(units, media.received_s, media.spent_s)


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
    """Stream recorded sources, many at once, as if each had been alone; yields their log entries.

    Decisions do not depend on when units are pushed, so that nothing sleeps: arrival times at
    `rate_wpm` units per minute enter the clock behind `elapsed`, together with the measured time of
    every step. Log entries come in order of completion.

    Args:
        limits: of the engine; 16 streams at once if left out.
        sampling: the model's generation settings if left out.

    Raises:
        StreamsFailed: at the end, if sources could not be streamed; names them, one a line.
    """
    failed = list[str]()
    for job, stream in ended_streams(
        *(model, policy, jobs), limits=limits, rate_wpm=rate_wpm, sampling=sampling, window=window
    ):
        if stream.error is not None:
            failed.append(f"source {job.index}: {stream.error}")
        else:
            yield stream.instance(job)
    if failed:
        raise StreamsFailed("\n".join(failed))


def ended_streams(
    model: StreamingCausalLM,
    policy: Policy,
    jobs: Iterable[Job],
    *,
    limits: Limits | None = None,
    rate_wpm: float = DEFAULT_RATE_WPM,
    sampling: Sampling | None = None,
    window: Window | None = None,
) -> Iterator[tuple[Job, Stream]]:
    """As `run_streams`, but gives the streams as they end, also those that could not go on."""
    limits = limits or Limits(streams=DEFAULT_STREAMS)
    streams, waiting = Streams(model, policy, limits, sampling, window), iter(jobs)
    running: list[Recorded] = []
    while True:
        # Jobs are drawn as lanes come free: there may be more than fit into memory.
        new = itertools.islice(waiting, limits.streams - len(running))
        running += [Recorded(streams, job, rate_wpm) for job in new]
        if not running:
            break
        for source in running:
            source.feed()
        streams.step()
        yield from ((source.job, source.stream) for source in running if source.stream.ended)
        running = [source for source in running if not source.stream.ended]


def source_turns(model: StreamingCausalLM, job: Job) -> list[list[Unit]]:
    """All units of a source at once, turn by turn, without bare end markers; a text is one turn."""
    turns: list[list[Unit]] = []
    begins = True
    for arrival in _arrivals(model, job, DEFAULT_RATE_WPM):
        for unit in arrival.units:
            if begins:
                turns.append([])
            turns[-1] += [] if unit.is_end else [unit]
            begins = unit.final
    return turns
