"""The trace of one instance: what the model saw at every probe, and what was decided. JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from proactivellm.files.replace import write_text
from proactivellm.policy.reason import Reason

Decision = Literal["WRITE", "READ"]
FORCED = (Reason.WRITE_MAX_LAG.text, Reason.WRITE_SOURCE_FINISHED.text)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One look at the next token."""

    units_read: int
    # Row of `Trace.words` that the candidate belongs to, from 0, the first one if it holds several;
    # their number for what ends the target.
    word: int
    token: int  # id of the candidate, which a WRITE writes
    text: str  # with the space before it; empty for what ends the target
    decision: Decision  # of a draft, whether the token was committed
    reason: str  # the text of a `Reason`
    entropy: float  # of the next-token distribution, nats
    max_prob: float  # of the most probable next token
    # Share of the source attention on each unit read, by the policy's heads if it has any, else by
    # all; 0 for units that left the window, empty if the model shows none.
    attention: list[float]
    statistic: float | None = None  # what is compared with the threshold, if there is one


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One instance under one policy."""

    index: int  # place of the source in its file; of recordings, number of the turn
    model: str
    policy: str  # canonical spec
    source: list[str]  # units as text
    # What was written: words or characters (`output.source_units`), or tokens where every one of
    # them is decided on.
    words: list[str]
    delays: list[int]  # for each of `words`, units read when its last character was written
    probes: list[Probe]  # in the order in which they were taken
    prediction: str
    reference: str | None = None
    request: str | None = None  # the policy as it was asked for, if known
    threshold: float | None = None  # of the policy's statistic, if it has one

    @property
    def statistic(self) -> str | None:
        """Name of what is compared with the threshold; None if there is no threshold."""
        return None if self.threshold is None else self.policy.partition(":")[0]

    def writes(self, word: int) -> list[Probe]:
        """The probes whose tokens make up a word, a row of `words`, in order; at least one."""
        written = [probe for probe in self.probes if probe.decision == "WRITE"]
        before = [probe for probe in written if probe.word < word][-1:]  # a token of several words
        return [probe for probe in written if probe.word == word] or before or written[:1]

    def deciding(self, word: int) -> Probe:
        """The probe that began a word, whose entropy and statistic stand for it."""
        return self.writes(word)[0]

    def is_forced(self, word: int) -> bool:
        """Whether a word was begun because a bound or the end of the source left no choice."""
        return self.deciding(word).reason in FORCED

    def attention(self, word: int) -> list[float]:
        """Mean attention of the tokens of a word on each of `source`; 0 for those not read.

        Empty if the model shows none.
        """
        rows = [probe.attention for probe in self.writes(word)]
        if not any(rows):
            return []
        padded = [row + [0.0] * (len(self.source) - len(row)) for row in rows]
        return [sum(column) / len(rows) for column in zip(*padded, strict=True)]


_TRACES = TypeAdapter(list[Trace])


def write_traces(path: str | Path, traces: Sequence[Trace]) -> None:
    """Saves traces as a JSON list."""
    text = json.dumps([asdict(trace) for trace in traces], ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_traces(path: str | Path) -> list[Trace]:
    """Loads what `write_traces` saved; a ValueError says what is wrong with any other file."""
    try:
        return _TRACES.validate_json(Path(path).read_bytes())
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in detail["loc"])
        raise ValueError(
            f"{path} holds no traces ({where + ': ' if where else ''}{detail['msg']}); "
            "`proactivellm show --json FILE` writes them"
        ) from None
