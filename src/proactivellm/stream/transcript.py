"""What was written, with its times, of which a log entry is made.

A source is one turn, or, of media, as many as their front end makes of it; each turn is a session
of its own. Delays count units of text, or milliseconds of media that had arrived.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate

from proactivellm.core.unit import Unit
from proactivellm.output.log import TEXT, Instance, LoggedThought
from proactivellm.output.scripts import is_unspaced
from proactivellm.output.source_units import seam
from proactivellm.session.events import Thought, Write
from proactivellm.session.state import SessionState
from proactivellm.stream.job import Job

_COUNTED = ("units_read", "forwards", "tokens", "dropped_units", "dropped_tokens")


@dataclass
class Transcript:
    """Target text with, for every piece of text, what had been read and when it came."""

    kind: str = TEXT
    # (text, delay, ms) in order
    texts: list[tuple[str, float, float]] = field(default_factory=list)
    token_delays: list[float] = field(default_factory=list)
    thoughts: list[LoggedThought] = field(default_factory=list)  # those begun
    waited_tokens: int | None = None  # source tokens before the first of them
    # What the turns that are over have read and cost.
    counted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    _ends_s: list[float] = field(default_factory=list)  # of the units of this turn
    _sizes: list[int] = field(default_factory=list)  # tokens of each
    _thinks: bool = False  # whether the last thought begun is not closed
    _closed_s: float = 0.0  # when the turn turned out to be over
    _breaks: bool = False  # whether the next piece begins a turn
    _turn: int = 0  # where in `texts` the last turn that wrote begins

    def arrive(self, units: Iterable[Unit]) -> None:
        """Note when units of this turn were there (`end_s`), before anything is written of them."""
        for unit in units:
            self._closed_s = unit.end_s
            if not unit.is_end:
                self._ends_s.append(unit.end_s)
                self._sizes.append(len(unit.tokens))

    def arrived_s(self, units_read: int, source_finished: bool) -> float:
        """When what was read of this turn had arrived."""
        if source_finished:
            return self._closed_s
        return self._ends_s[units_read - 1] if units_read else 0.0

    def add(self, write: Write, elapsed_ms: float) -> str:
        """Note what was written; gives its text, after a `seam` where it begins another turn."""
        delay: float = write.units_read
        if self.kind != TEXT:
            delay = round(1000 * self.arrived_s(write.units_read, write.source_finished), 3)
        if write.token_id is not None:
            self.token_delays.append(delay)
        if not write.text:
            return ""
        text = write.text
        if self._breaks and self.texts:
            before = "".join(text for text, _, _ in self.texts[self._turn :])
            text, self._turn = seam(before, text) + text, len(self.texts)
        self._breaks = False
        self.texts.append((text, delay, elapsed_ms))
        return text

    def think(self, thought: Thought, elapsed_ms: float) -> None:
        """Note a token of a thought; the one that closes them all is part of none."""
        if thought.answers:
            return
        if self.waited_tokens is None:
            self.waited_tokens = sum(self._sizes[: thought.units_read])
        at_ms = round(elapsed_ms, 3)
        if self._thinks:
            begun = self.thoughts.pop()
        else:
            begun = LoggedThought(
                stage=thought.stage, units_read=thought.units_read, began_ms=at_ms
            )
        text, tokens = begun.text + thought.text, begun.tokens + 1
        self.thoughts.append(replace(begun, text=text, tokens=tokens, ended_ms=at_ms))
        self._thinks = not thought.closes

    def end_turn(self, state: SessionState) -> None:
        """Sum up a turn; the next one, if there is any, begins a word."""
        for name in _COUNTED:
            self.counted[name] += getattr(state, name)
        self._ends_s, self._sizes, self._breaks = [], [], True

    @property
    def text(self) -> str:
        """All that was written."""
        return "".join(text for text, _, _ in self.texts)

    def times(self, units: Iterable[str]) -> tuple[list[float], list[float]]:
        """Delay and time in ms of each unit of the text, taken at its last character."""
        delays, elapsed = self.characters()
        ends = [end - 1 for end in accumulate(map(len, units))]
        return [delays[end] for end in ends], [elapsed[end] for end in ends]

    def words(self) -> tuple[list[float], list[float]]:
        """Delay and time in ms of every word, see `times`."""
        return self.times(self.text.split())

    def characters(self) -> tuple[list[float], list[float]]:
        """Delay and time in ms of every character that is not white space."""
        times = [
            (delay, round(at_ms, 3))
            for text, delay, at_ms in self.texts
            for _ in range(len("".join(text.split())))
        ]
        return [delay for delay, _ in times], [at_ms for _, at_ms in times]

    def instance(
        self,
        job: Job,
        policy: str,
        source_ms: float,
        source_length: int,
        compute_ms: float | None = None,
    ) -> Instance:
        """The log entry, by words or characters, of a source all of whose turns are over.

        Args:
            policy: canonical spec.
            source_ms: when the whole source had arrived; of media, their length.
            source_length: units of a text, read or not.
        """
        prediction = self.text
        unspaced = is_unspaced([prediction, job.reference or ""])
        delays, elapsed = self.characters() if unspaced else self.words()
        source_ms = round(source_ms, 3)
        return Instance(
            index=job.index,
            source=job.name,
            source_type=self.kind,
            source_length=source_length if self.kind == TEXT else source_ms,
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
            thoughts=self.thoughts or None,
            waited_tokens=self.waited_tokens,
            needed=[*job.needed] if self.thoughts and job.needed else None,
            evidence_ms=[round(1000 * each, 3) for each in job.evidence_s] or None,
            group=job.group,
        )
