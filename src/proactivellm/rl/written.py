"""What streams on the engine write, many at once, each as if it had been alone."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.output.log import Instance
from proactivellm.policy.base import Policy
from proactivellm.session.events import End, Ending, Event, Write
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job
from proactivellm.stream.clock import ArrivalClock
from proactivellm.stream.source import Stream
from proactivellm.stream.streams import Streams


@dataclass(frozen=True, kw_only=True)
class Source:
    """A text to stream, in units; the last one is final."""

    job: Job
    units: Sequence[Unit]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One stream: what was written, and when."""

    source: Source
    instance: Instance
    tokens: list[int]  # ids written, what ended the target included
    schedule: list[int]  # units read when each was predicted
    ended: bool  # by the model itself, and not by a limit


R = TypeVar("R", bound="Run")


class Run:
    """A stream on its way, and what it has written; all of its source has arrived."""

    def __init__(self, stream: Stream, source: Source) -> None:
        self.source, self.stream = source, stream
        stream.push(source.units, source.units[-1].end_s)
        stream.close(source.units[-1].end_s)
        self.tokens: list[int] = []
        self.schedule: list[int] = []
        self.ended = False

    def note(self, event: Event) -> None:
        """Keep a token that was written."""
        if isinstance(event, Write) and event.token_id is not None:
            self.tokens.append(event.token_id)
            self.schedule.append(event.units_read)
        if isinstance(event, End):
            self.ended = event.how == Ending.END_TOKEN

    def rollout(self) -> Rollout:
        """What became of it; ValueError if it failed."""
        if self.stream.error is not None:
            raise ValueError(f"source {self.source.job.index}: {self.stream.error}")
        return Rollout(
            source=self.source,
            instance=self.stream.instance(self.source.job),
            tokens=self.tokens,
            schedule=self.schedule,
            ended=self.ended,
        )


def drive(streams: Streams, waiting: Iterable[Callable[[], R]], num_lanes: int) -> list[R]:
    """Opens runs as lanes become free, and steps until all have ended; in the order given."""
    runs, running, rest = list[R](), list[R](), iter(waiting)
    while True:
        for begin in islice(rest, num_lanes - len(running)):
            runs.append(begin())
            running.append(runs[-1])
        if not running:
            return runs
        by_lane = {run.stream.lane: run for run in running}
        for event in streams.step() or ():
            by_lane[event.lane].note(event)
        running = [run for run in running if not run.stream.ended]


def write(
    model: StreamingCausalLM,
    asked: Sequence[tuple[Source, Policy, Sampling]],
    num_lanes: int = 64,
) -> list[Rollout]:
    """A rollout of each source under a policy of its own; ValueError if one cannot be streamed."""
    if not asked:
        return []
    streams = Streams(model, asked[0][1], Limits(streams=num_lanes), Sampling())

    def begin(source: Source, policy: Policy, sampling: Sampling) -> Callable[[], Run]:
        def opened() -> Run:
            stream = streams.open(clock=ArrivalClock(), policy=policy, sampling=sampling)
            return Run(stream, source)

        return opened

    runs = drive(streams, [begin(*each) for each in asked], num_lanes)
    return [run.rollout() for run in runs]
