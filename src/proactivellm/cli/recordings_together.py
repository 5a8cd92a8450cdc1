"""Several recordings at once: their blocks go through one encoder, and their lanes through one LM.

Each writes what it writes alone. Targets come as they are complete, after the names of their
recordings.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from proactivellm.cli.completed import tell_completed
from proactivellm.cli.listening import LiveRecording
from proactivellm.cli.one_by_one import Settings
from proactivellm.cli.stopping import Stops
from proactivellm.cli.transcript_files import TranscriptFiles
from proactivellm.output.log import Instance
from proactivellm.session.limits import Limits
from proactivellm.stream import ArrivalClock, Hearing, Job, Streams
from proactivellm.stream.timed import Timeline


class _Running:
    """A recording in its stream."""

    def __init__(self, streams: Streams, recording: LiveRecording) -> None:
        self.recording, self.timeline = recording, Timeline()
        model = streams.engine.model
        hearing = Hearing(model, recording.rate, recording.question, tells_turns=True)
        self.stream = streams.open(hearing=hearing, clock=ArrivalClock())

    def feed(self) -> None:
        """Pushes the next block, if all before it was read."""
        if self.stream.wants_more:
            block = next(self.recording.blocks, None)
            if block is None:
                self.stream.close()
            else:
                self.stream.push(block)

    def note(self) -> None:
        """Takes what has happened into the timeline."""
        for event in self.stream.take():
            self.timeline.add(event)

    def instance(self, index: int) -> Instance:
        """The log entry."""
        where, task = self.recording.text, self.recording.task
        return self.stream.instance(Job(index=index, source=where, task=task))


def stream_recordings_together(
    settings: Settings,
    recordings: Iterator[LiveRecording],
    num_lanes: int,
    log: Path | None,
    stops: Stops,
    files: TranscriptFiles,
) -> bool:
    """Streams all recordings, so many at once, and sums up.

    A recording that cannot be streamed ends alone; the others go on.

    Returns:
        Whether it came to the end, and was not interrupted; what was written until then is kept.

    Raises:
        ValueError: at the end, if recordings could not be streamed; names them.
    """
    limits = Limits(streams=num_lanes, depth=settings.depth, sight=settings.sight)
    streams = Streams(settings.model, settings.policy, limits, settings.sampling, settings.window)
    failed = list[str]()

    def completed() -> Iterator[tuple[str, Instance]]:
        num_done = 0
        for source in _over(streams, recordings, stops):
            name = source.recording.where
            if source.stream.error is not None:
                failed.append(f"{name}: {source.stream.error}")
                continue
            instance = source.instance(num_done)
            num_done += 1
            files.write(name, source.timeline, instance, settings.encode)
            yield name, instance

    return tell_completed(completed(), streams, failed, log, stops)


def _over(
    streams: Streams, recordings: Iterable[LiveRecording], stops: Stops
) -> Iterator[_Running]:
    """The recordings as they end; when it is stopped, what there is of the others."""
    waiting, running = iter(recordings), list[_Running]()
    while not stops.came:
        while len(running) < streams.engine.limits.streams and (new := next(waiting, None)):
            running.append(_Running(streams, new))
        if not running:
            return
        for source in running:
            source.feed()
        streams.step()
        for source in running:
            source.note()
        yield from (source for source in running if source.stream.ended)
        running = [source for source in running if not source.stream.ended]
    for source in running:
        source.stream.cancel()
        source.note()
        yield source
