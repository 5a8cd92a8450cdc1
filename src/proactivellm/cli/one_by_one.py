"""Sources streamed one after another: events go to a display, instances to a log."""

import signal
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from proactivellm.cli.display import Display, format_number
from proactivellm.cli.listening import LiveRecording
from proactivellm.cli.live_lines import LiveLine
from proactivellm.cli.stopping import Stops
from proactivellm.cli.thought_lines import ThoughtLines
from proactivellm.cli.transcript_files import TranscriptFiles
from proactivellm.core.unit import Unit
from proactivellm.files.growing import open_lines
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.metrics.score import score
from proactivellm.metrics.thinking import measure_thinking
from proactivellm.modality.sentences import segmenter_for
from proactivellm.output.log import Instance, Task, write_instance
from proactivellm.policy.base import Policy
from proactivellm.session.conversation import Conversation
from proactivellm.session.limits import Limits, Sight
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window
from proactivellm.stream import AskedUnits, StreamCut, StreamEvent, stream_units
from proactivellm.stream.timed import Timeline


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How sources are streamed.

    Attributes:
        rate_wpm: units per minute at which text arrives at most; None = as they come.
        sampling: None = the model's generation settings.
        window: what a stream keeps in view; None = everything.
        conversation: that each source is the next turn of; None = each begins afresh.
        conversation_file: where it is kept after each turn.
        question: of a model that thinks, read before each text.
        depth: of its reasoning; None = as it decides.
        sight: how far back it sees of a source; None = to the beginning.
        thoughts: where its thoughts are shown; None = nowhere.

    Raises:
        ValueError: if the model's prompt leaves no room in the window.
    """

    model: StreamingCausalLM
    policy: Policy
    rate_wpm: float | None = None
    sampling: Sampling | None = None
    window: Window | None = None
    conversation: Conversation | None = None
    conversation_file: Path | None = None
    question: str = ""
    depth: int | None = None
    sight: Sight | None = None
    thoughts: ThoughtLines | None = None

    def __post_init__(self) -> None:
        if self.window is not None:
            self.window.check_prompt(self.model.prompt)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self.model.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def keep(self) -> None:
        """Write the conversation, if there is one, to its file."""
        if self.conversation is not None and self.conversation_file is not None:
            self.conversation.save(self.conversation_file)


class _Source(Protocol):
    """What is streamed: its place for messages, its task, and, when all has arrived, its text."""

    @property
    def task(self) -> Task: ...

    @property
    def where(self) -> str: ...

    @property
    def is_live(self) -> bool: ...

    @property
    def ends_with_ctrl_c(self) -> bool: ...

    @property
    def text(self) -> str: ...


_Arriving = tuple[_Source, Iterable[Sequence[Unit]]]  # a source, and its units as they arrive


def stream_lines(
    settings: Settings,
    lines: Iterable[LiveLine],
    display: Display,
    log: Path | None = None,
    stops: Stops | None = None,
) -> bool:
    """Streams every line, and sums up; whether it came to the end, and was not interrupted.

    What was read and written until a stop is kept.

    Raises:
        ValueError: a line cannot be streamed; names it.
    """
    segmenter = segmenter_for(settings.model)
    stops = stops or Stops()

    def units(line: LiveLine) -> Iterable[Sequence[Unit]]:
        segmenter.ask(settings.question)
        arriving = line.units(segmenter, settings.rate_wpm)
        # A pipe ends by itself (`live_lines`), with the word that is cut off; a pace may be slow.
        ends_by_itself = line.is_live and settings.rate_wpm is None
        arriving = arriving if ends_by_itself else stops.until_stopped(arriving)
        return AskedUnits(settings.question, arriving) if settings.question else arriving

    return _stream(settings, ((line, units(line)) for line in lines), display, log, stops)


def stream_recordings(
    settings: Settings,
    recordings: Iterable[LiveRecording],
    display: Display,
    log: Path | None = None,
    stops: Stops | None = None,
    files: TranscriptFiles | None = None,
) -> bool:
    """Streams every recording, as `stream_lines` does lines; what is wanted goes to files."""
    files = files if files is not None and files.wanted else None
    timed = files is not None
    arriving = ((each, each.heard(settings.model, tells_turns=timed)) for each in recordings)
    return _stream(settings, arriving, display, log, stops or Stops(), files)


def _stream(
    settings: Settings,
    sources: Iterator[_Arriving],
    display: Display,
    log: Path | None,
    stops: Stops,
    files: TranscriptFiles | None = None,
) -> bool:
    done: list[Instance] = []
    ended = False  # with Ctrl-C, as the last source is meant to
    with open_lines(log) as file, stops.noting():
        try:
            for source, arrivals in sources:
                display.begin()
                events = stream_units(
                    settings.model,
                    settings.policy,
                    arrivals,
                    settings.sampling,
                    settings.window,
                    settings.conversation,
                    Limits(depth=settings.depth, sight=settings.sight),
                )
                timeline = None if files is None else Timeline()
                shown = _Shown(display, timeline, settings.thoughts)
                instance = _shown(events, shown, source, stops)
                settings.keep()
                instance = replace(instance, index=len(done), source=source.text, task=source.task)
                done.append(instance)
                display.end(instance)
                if files is not None and timeline is not None:
                    files.write(source.where, timeline, instance, settings.encode)
                if file:
                    write_instance(file, instance)
                if stops.came:
                    ended = source.ends_with_ctrl_c and stops.number == signal.SIGINT
                    break
        finally:
            display.close()
    display.summary(summarize(done))
    return ended or not stops.came


class _Shown(NamedTuple):
    """Where the events of a source go."""

    display: Display
    timeline: Timeline | None
    thoughts: ThoughtLines | None


def _shown(
    events: Generator[StreamEvent, None, Instance], shown: _Shown, source: _Source, stops: Stops
) -> Instance:
    """Shows the events of a source as they happen; one that is not live is cut by a stop."""
    display, timeline, thoughts = shown
    while True:
        try:
            if stops.came and not source.is_live:
                events.throw(StreamCut)
            event = next(events)
            if timeline is not None:
                timeline.add(event)
            if event.kind == "THINK":
                if thoughts is not None and event.closes:
                    display.turn()  # the drawing stays above
                if thoughts is not None:
                    thoughts.take(event)
            elif event.kind == "END":
                display.turn()
            elif event.kind not in ("BEGIN", "PAUSE"):
                display.event(event)
        except StopIteration as end:
            return end.value
        except ValueError as error:
            raise ValueError(f"{source.where}: {error}") from error


def summarize(done: Sequence[Instance], steps: int | None = None) -> str:
    """One line over all instances: means of the lags, totals of the costs and of what was dropped.

    Args:
        done: all of text, or all of speech.
        steps: forwards that their streams shared, if they did.
    """
    if not done:
        return "0 sentences"
    forwards, tokens = (sum(getattr(i, name) or 0 for i in done) for name in ("forwards", "tokens"))
    shared = f" in {steps} steps" if steps is not None else ""
    parts = [*_lags(done), f"{forwards} forwards{shared}", f"{tokens} tokens"]
    units, written = (
        sum(getattr(i, f"dropped_{name}") for i in done) for name in ("units", "tokens")
    )
    if units or written:
        parts.append(f"dropped {units} units, {written} tokens")
    if measured := measure_thinking(done):
        parts.append(f"first thought after {measured['waited_tokens'].corpus():.1f} tokens")
        delay = measured["answer_delay_s"].corpus()
        parts += [] if delay is None else [f"answer {delay:.2f} s after the end"]
    return ", ".join(parts)


def _lags(done: Sequence[Instance]) -> list[str]:
    """How much was streamed, and how far behind."""
    scores, plural = score(done), "s" * (len(done) != 1)
    if done[0].source_type == "text":
        lags = [f"{name} {format_number(scores[name])}" for name in ("AL", "LAAL", "RCO")]
        return [f"{len(done)} sentence{plural}", *lags]
    audio_s = sum(instance.source_length for instance in done) / 1000
    lag = "-" if scores["LAAL"] is None else f"{scores['LAAL']:.0f} ms"
    factor = scores.get("RTF")
    speed = "-" if factor is None else f"{factor:.3f}"
    return [f"{len(done)} recording{plural}", f"{audio_s:.1f} s", f"LAAL {lag}", f"RTF {speed}"]
