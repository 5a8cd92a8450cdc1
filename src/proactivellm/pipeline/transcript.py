"""What is streamed, and what was written with its times: the makings of a log entry.

A source is one turn, or, of media, as many as their front end makes of it; each turn is a session
of its own. Delays count units of text, or milliseconds of media that had arrived.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from proactivellm.modality.kinds import kind_of_media
from proactivellm.output.log import TEXT, Instance, Task, is_unspaced
from proactivellm.pipeline.media import Replay
from proactivellm.policy.base import Policy
from proactivellm.session.events import Event, Write
from proactivellm.session.state import SessionState
from proactivellm.units.unit import Unit

_COUNTED = ("units_read", "forwards", "tokens", "dropped_units", "dropped_tokens")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One source to stream.

    Attributes:
        index: place in its file.
        source: source text; of media, the text that is read before them.
        reference: wanted target, if known.
        task: what is scored: a translation, the answer to a question, or a transcript.
        answers: all answers that are accepted; None = the reference alone.
        policy: of this source alone; None = that of the run, whose name its log entry bears anyway.
        media: files that are the source, joined; empty = the source is text.
        replay: of the media, where several policies are to take them in.
    """

    index: int
    source: str
    reference: str | None = None
    task: Task = "translation"
    answers: tuple[str, ...] | None = None
    policy: Policy | None = None
    media: tuple[str, ...] = ()
    replay: Replay | None = field(default=None, compare=False, repr=False)

    @property
    def kind(self) -> str:
        """Of the source: text, or the modality of its files."""
        return kind_of_media(self.media) if self.media else TEXT

    @property
    def name(self) -> str:
        """The source as the log has it: its text, or the names of its files."""
        return " ".join([*self.media, self.source]).strip() if self.media else self.source


@dataclass
class Transcript:
    """Target text with, for every piece, what had been read and when it came.

    Attributes:
        kind: of source; of all but text, delays are milliseconds that had arrived, instead of units
            read.
        pieces: (text, delay, ms) in order.
        token_delays: delay of each token.
        counted: what the turns that are over have read and cost.
    """

    kind: str = TEXT
    pieces: list[tuple[str, float, float]] = field(default_factory=list)
    token_delays: list[float] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    _ends_ms: list[float] = field(default_factory=list)  # of the units of this turn
    _closed_ms: float = 0.0  # when the turn turned out to be over
    _breaks: bool = False  # whether the next piece begins a turn

    def arrive(self, units: Iterable[Unit]) -> None:
        """Note when units could be read, before anything is written because of them.

        Args:
            units: of the turn, in order; `end_s` is when they were there.
        """
        for unit in units:
            self._closed_ms = round(1000 * unit.end_s, 3)
            if not unit.is_end:
                self._ends_ms.append(self._closed_ms)

    def add(self, events: Iterable[Event], elapsed_ms: float) -> str:
        """Note what was written; other events are passed over.

        Args:
            events: of one step.
            elapsed_ms: when the step ended.

        Returns:
            The text, with a space before it where it begins another turn.
        """
        text = ""
        for write in events:
            if not isinstance(write, Write):
                continue
            delay = self._delay(write)
            if write.text:
                gap = " " if self._breaks and self.pieces else ""
                self._breaks = False
                self.pieces.append((gap + write.text, delay, elapsed_ms))
                text += gap + write.text
            if write.token_id is not None:
                self.token_delays.append(delay)
        return text

    def end_turn(self, state: SessionState) -> None:
        """Sum up a turn; the next one, if there is any, begins a word.

        Args:
            state: of its finished stream.
        """
        for name in _COUNTED:
            self.counted[name] += getattr(state, name)
        self._ends_ms, self._breaks = [], True

    def words(self) -> tuple[list[float], list[float]]:
        """Delay and time in ms of every word, taken at its last character."""
        delays: list[float] = []
        elapsed: list[float] = []
        inside = False
        for text, delay, at_ms in self.pieces:
            for character in text:
                if character.isspace():
                    inside = False
                    continue
                if not inside:
                    delays.append(delay)
                    elapsed.append(at_ms)
                    inside = True
                delays[-1], elapsed[-1] = delay, round(at_ms, 3)
        return delays, elapsed

    def characters(self) -> tuple[list[float], list[float]]:
        """Delay and time in ms of every character that is not white space."""
        times = [
            (delay, round(at_ms, 3))
            for text, delay, at_ms in self.pieces
            for _ in range(len("".join(text.split())))
        ]
        return [delay for delay, _ in times], [at_ms for _, at_ms in times]

    def instance(
        self,
        job: Job,
        policy: str,
        source_ms: float,
        source_length: int | None = None,
        compute_ms: float | None = None,
    ) -> Instance:
        """The log entry, by words or characters, of a source all of whose turns are over.

        Args:
            job: what was streamed.
            policy: canonical spec.
            source_ms: when the whole source had arrived; of media, their length.
            source_length: units of a text, read or not; None = those that were read.
            compute_ms: time that was spent on it.

        Returns:
            The entry.
        """
        prediction = "".join(text for text, _, _ in self.pieces)
        unspaced = is_unspaced([prediction, job.reference or ""])
        delays, elapsed = self.characters() if unspaced else self.words()
        length = self.counted["units_read"] if source_length is None else source_length
        source_ms = round(source_ms, 3)
        return Instance(
            index=job.index,
            source=job.name,
            source_type=self.kind,
            source_length=length if self.kind == TEXT else source_ms,
            prediction=prediction,
            prediction_length=len(delays),
            reference=job.reference,
            task=job.task,
            answers=None if job.answers is None else list(job.answers),
            delays=delays,
            elapsed=elapsed,
            token_delays=self.token_delays,
            policy=policy,
            forwards=self.counted["forwards"],
            tokens=self.counted["tokens"],
            first_token_ms=elapsed[0] if elapsed else None,
            source_ms=source_ms,
            compute_ms=None if compute_ms is None else round(compute_ms, 3),
            dropped_units=self.counted["dropped_units"],
            dropped_tokens=self.counted["dropped_tokens"],
            latency_unit="char" if unspaced else "word",
        )

    def _delay(self, write: Write) -> float:
        if self.kind == TEXT:
            return write.units_read
        if write.source_finished:
            return self._closed_ms
        return self._ends_ms[write.units_read - 1] if write.units_read else 0.0
