"""What is streamed, and what was written with its times: the makings of a log entry."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from proactivellm.output.log import Instance, Task
from proactivellm.policy.base import Policy
from proactivellm.session.state import SessionState, Write


@dataclass(frozen=True, kw_only=True)
class Job:
    """One source to stream.

    Attributes:
        index: place in its file.
        source: source text.
        reference: wanted target, if known.
        task: what is scored: a translation, or the answer to a question.
        answers: all answers that are accepted; None = the reference alone.
        policy: of this source alone; None = that of the run, whose name its log entry bears anyway.
    """

    index: int
    source: str
    reference: str | None = None
    task: Task = "translation"
    answers: tuple[str, ...] | None = None
    policy: Policy | None = None


@dataclass
class Transcript:
    """Target text with, for every piece, what had been read and when it came.

    Attributes:
        pieces: (text, units read, ms) in order.
        token_delays: units read when each token was predicted.
    """

    pieces: list[tuple[str, int, float]] = field(default_factory=list)
    token_delays: list[int] = field(default_factory=list)

    def add(self, writes: Iterable[Write], elapsed_ms: float) -> None:
        """Note what was written.

        Args:
            writes: events of one step.
            elapsed_ms: when the step ended.
        """
        for write in writes:
            if write.text:
                self.pieces.append((write.text, write.units_read, elapsed_ms))
            if write.token_id is not None:
                self.token_delays.append(write.units_read)

    def words(self) -> tuple[list[int], list[float]]:
        """Delay in units and time in ms of every word, taken at its last character."""
        delays: list[int] = []
        elapsed: list[float] = []
        inside = False
        for text, units, at_ms in self.pieces:
            for character in text:
                if character.isspace():
                    inside = False
                    continue
                if not inside:
                    delays.append(units)
                    elapsed.append(at_ms)
                    inside = True
                delays[-1], elapsed[-1] = units, round(at_ms, 3)
        return delays, elapsed

    def instance(
        self,
        job: Job,
        policy: str,
        state: SessionState,
        source_ms: float,
        source_length: int | None = None,
    ) -> Instance:
        """The log entry of a finished stream.

        Args:
            job: what was streamed.
            policy: canonical spec.
            state: of the finished stream.
            source_ms: when the whole source had arrived.
            source_length: its units, read or not; None = those that were read.

        Returns:
            The entry.
        """
        delays, elapsed = self.words()
        prediction = "".join(text for text, _, _ in self.pieces)
        return Instance(
            index=job.index,
            source=job.source,
            source_length=state.units_read if source_length is None else source_length,
            prediction=prediction,
            prediction_length=len(delays),
            reference=job.reference,
            task=job.task,
            answers=None if job.answers is None else list(job.answers),
            delays=delays,
            elapsed=elapsed,
            token_delays=self.token_delays,
            policy=policy,
            forwards=state.forwards,
            tokens=state.tokens,
            first_token_ms=elapsed[0] if elapsed else None,
            source_ms=round(source_ms, 3),
            dropped_units=state.dropped_units,
            dropped_tokens=state.dropped_tokens,
        )
