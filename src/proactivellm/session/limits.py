"""Limits of an engine, and the errors that tell when one is reached."""

from dataclasses import dataclass
from typing import Literal, get_args


class QueueFull(RuntimeError):
    """A stream's input queue is full: push again after a step."""


class EngineFull(RuntimeError):
    """No stream can be admitted now: release one first."""


Beyond = Literal["host", "dropped"]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """How far back a stream sees.

    Attributes:
        units: of the source that a token sees before its own; of what is written, before it.
        recall: further units that what is written sees: those whose mean embedding has the largest
            cosine with that of the question, of all units read, in sight or not.
        beyond: where entries go that are out of sight: `host` keeps them in the memory of the
            host, `dropped` nowhere, and then nothing is recalled.
    """

    units: int
    recall: int = 0
    beyond: Beyond = "host"

    def __post_init__(self) -> None:
        if self.units < 1 or self.recall < 0:
            raise ValueError(f"units={self.units}, recall={self.recall}: give at least 1 and 0")
        if self.beyond not in get_args(Beyond):
            raise ValueError(f"beyond={self.beyond!r}: give host or dropped")
        if self.recall and self.beyond == "dropped":
            raise ValueError("what is dropped cannot be recalled: keep it on the host")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an engine holds and does at most.

    Attributes:
        streams: streams open at once.
        entries: cache entries (tokens) of all streams together, preallocated; None = as many as
            it takes.
        step_tokens: tokens of one forward, which bounds how long a step takes. One stream may
            exceed it where a single unit or its window is longer.
        pending: units that a stream may have pushed and not read; None = any number.
        thought_tokens: of a model that thinks: tokens of a thought, after which it is closed.
        depth: of its reasoning: 1 answers after the last thought, 2 integrates first, 3 reflects as
            well; None = as the model decides.
        sight: how far back streams see of their sources; None = to the beginning.
    """

    streams: int = 1
    entries: int | None = None
    step_tokens: int = 2048
    pending: int | None = None
    thought_tokens: int = 256
    depth: int | None = None
    sight: Sight | None = None

    def __post_init__(self) -> None:
        for name in ("streams", "step_tokens", "pending", "thought_tokens", "depth"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: give at least 1")
