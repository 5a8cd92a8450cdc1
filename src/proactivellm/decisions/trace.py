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
    """One look at the next token.

    Attributes:
        word: row of `Trace.words` that the candidate belongs to, from 0; their number for what ends
            the target.
        token: id of the candidate, the token that a WRITE writes.
        text: its text, the space before it included; empty for what ends the target.
        decision: of a draft, whether the token was committed.
        reason: the text of a `Reason`.
        entropy: of the next-token distribution, nats.
        max_prob: probability of its most probable token.
        attention: share of the source attention on each unit read, by the policy's heads if it has
            any, else by all; 0 for units that left the window, empty if the model shows none.
        statistic: what the policy compares with its threshold, if it has one.
    """

    units_read: int
    word: int
    token: int
    text: str
    decision: Decision
    reason: str
    entropy: float
    max_prob: float
    attention: list[float]
    statistic: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One instance under one policy.

    Attributes:
        index: place of the source in its file.
        policy: canonical spec; `request`: as it was asked for, if known.
        source: source units as text.
        words: what was written: words, or tokens where every token is decided on.
        delays: for each of `words`, source units read when its last character was written.
        probes: in the order in which they were taken.
        threshold: of the policy's statistic, if it has one.
    """

    index: int
    model: str
    policy: str
    source: list[str]
    words: list[str]
    delays: list[int]
    probes: list[Probe]
    prediction: str
    reference: str | None = None
    request: str | None = None
    threshold: float | None = None

    @property
    def statistic(self) -> str | None:
        """Name of what is compared with the threshold; None if there is no threshold."""
        return None if self.threshold is None else self.policy.partition(":")[0]

    def writes(self, word: int) -> list[Probe]:
        """The probes whose tokens make up a word, a row of `words`, in order; at least one."""
        written = [probe for probe in self.probes if probe.decision == "WRITE"]
        later = [probe for probe in written if probe.word > word][:1]  # a token of several words
        return [probe for probe in written if probe.word == word] or later or written[-1:]

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
    """Loads what `write_traces` saved.

    Raises:
        ValueError: it is none of `write_traces`; names the file and what is wrong.
    """
    try:
        return _TRACES.validate_json(Path(path).read_bytes())
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in detail["loc"])
        raise ValueError(
            f"{path} holds no traces ({where + ': ' if where else ''}{detail['msg']}); "
            "`proactivellm show --json FILE` writes them"
        ) from None
