"""The log entry of one source: what was written for it, and when.

Values are checked where they come from outside (`output.log`): their types and signs by the
annotations, how they belong together by `check_times`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, StrictFloat, StrictInt, StrictStr

from proactivellm.output.scripts import characters

VERSION = 1
Task = Literal["translation", "qa", "choice", "reasoning", "summary", "asr"]
TEXT = "text"
SourceType = Annotated[StrictStr, Field(pattern=r"^[a-z]+$")]  # "text", or a modality
LatencyUnit = Literal["word", "char", "spm"]

# What a log may hold: no text in place of a number, nothing negative, neither NaN nor Infinity.
Count = Annotated[StrictInt, Field(ge=0)]
Number = Annotated[StrictInt | StrictFloat, Field(ge=0, lt=float("inf"))]
_ROUNDING_MS = 1.0  # by which a delay may lie beyond media, whose length is rounded, too


@dataclass(frozen=True, kw_only=True)
class LoggedThought:
    """What a model thought, apart from what it answered; a skipped thought has no text."""

    text: StrictStr = ""
    stage: Count  # 0 = about a unit of the source; deep stages, after its end, from 1
    units_read: Count  # source units that it saw
    tokens: Count = 0  # control tokens included
    began_ms: Number  # when its first token was written, on the clock of `elapsed`
    ended_ms: Number = 0.0  # when its last one was


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One source, what was written for it, and when; None is what was not recorded.

    Raises:
        ValueError: the version is not supported, or delays, elapsed times and words differ in
            number.
    """

    version: int = VERSION
    index: Count  # place of the source in its file, from 0
    source: StrictStr  # the text; of media, their files
    source_length: Number  # source units in the stream; of media, their duration in ms
    prediction: StrictStr  # the whole target text
    prediction_length: Count  # words as `str.split()` cuts them, or whatever `latency_unit` counts
    # None: latency is scored against the length of the prediction, as SimulEval does.
    reference: StrictStr | None = None
    # For each target word (or `latency_unit`), source units read when it was written; of media, ms
    # of them: the end of the last unit read, `source_length` once the end of the source was read.
    delays: Sequence[Number]
    # For each of them, ms from the start of the stream until it was written, on a clock where
    # arriving (at a stated rate) and computing overlap.
    elapsed: Sequence[Number]
    # The schedule g: for each target token, the end-of-stream token included, source units read
    # when it was predicted; ms, likewise, of media.
    token_delays: Sequence[Number]
    policy: StrictStr  # canonical spec
    forwards: Count | None  # of the model
    tokens: Count | None  # that went through the model
    # From the start of the stream until the first target token, if any.
    first_token_ms: Number | None = None
    source_ms: Number | None = None  # until the whole source has arrived, on the clock of `elapsed`
    dropped_units: Count = 0  # source units that had left the window at the end
    dropped_tokens: Count = 0  # target tokens, likewise
    # Every text that was shown, oldest first, of policies that take words back.
    revisions: list[StrictStr] | None = None
    # "qa": an answer to a question about the source; "choice": the letter of an option;
    # "reasoning": thoughts, then an answer; "summary": of a dialogue or text; "asr": a transcript.
    task: Task = "translation"
    # All that are accepted of "qa", "choice" and "reasoning"; None: the reference alone.
    answers: list[StrictStr] | None = None
    source_type: SourceType = TEXT  # says what `source_length`, `delays` and `token_delays` count
    compute_ms: Number | None = None  # time spent in encoder and model
    # What `prediction_length`, `delays` and `elapsed` count, as SimulEval names it: words; "char":
    # characters without white space, for scripts that have no spaces between words; "spm": the
    # pieces of `prediction_spm`.
    latency_unit: LatencyUnit = "word"
    prediction_spm: list[StrictStr] | None = None
    thoughts: list[LoggedThought] | None = None  # of a model that thinks, in order
    # Source tokens read before the first of them; prompt and question are none.
    waited_tokens: Count | None = None
    # Of a problem, by unit of the source: whether the answer depends on it.
    needed: list[bool] | None = None
    # Of media: when they had told each word of the reference; likewise where that has no words.
    evidence_ms: list[Number] | None = None
    group: StrictStr = ""  # scores are told apart by it, such as a kind of question
    kept_share: Number | None = None  # of the encoder's tokens, what was not dropped

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(
                f"log version {self.version} is not supported (supported: {VERSION}); "
                "score it with the release that wrote it"
            )
        name = {"word": "words", "char": "characters", "spm": "pieces"}[self.latency_unit]
        counts = {
            "prediction_length": self.prediction_length,
            "delays": len(self.delays),
            "elapsed": len(self.elapsed),
            f"{name} in the prediction": len(self.units()),
        }
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{name}: {count}" for name, count in counts.items())
            how = ", as str.split() counts them," if self.latency_unit == "word" else ""
            raise ValueError(
                f"the numbers of target {name} disagree ({found}); each of them{how} needs one "
                "delay and one elapsed time"
            )

    def units(self) -> list[str]:
        """What was written, cut as the delays are: words, characters or pieces."""
        if self.latency_unit == "spm":
            return self.prediction_spm or []
        return (
            characters(self.prediction) if self.latency_unit == "char" else self.prediction.split()
        )


def check_times(instance: Instance, runs_on: bool) -> None:
    """Raises a ValueError for times that cannot have been: beyond the source, or less than before.

    `runs_on` says whether `elapsed` is a clock that never goes back.
    """
    room = 0.0 if instance.source_type == TEXT else _ROUNDING_MS
    for name in ("delays", "token_delays"):
        delays = getattr(instance, name)
        _check_order(name, delays)
        if delays and delays[-1] > instance.source_length + room:
            place = next(i for i, d in enumerate(delays) if d > instance.source_length + room)
            raise ValueError(
                f"{name}[{place}] = {delays[place]} lies beyond the source, whose source_length is "
                f"{instance.source_length}: both count the same units, of what was read"
            )
    if runs_on:
        _check_order("elapsed", instance.elapsed)


def _check_order(name: str, times: Sequence[float]) -> None:
    for place, (before, now) in enumerate(pairwise(times), start=1):
        if now < before:
            raise ValueError(
                f"{name}[{place}] = {now} is less than the {before} before it: what is written "
                "later cannot have been written earlier"
            )
