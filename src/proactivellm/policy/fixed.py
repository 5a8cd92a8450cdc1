"""Policies that look at counters only: wait-k, offline, and the replay of a trace."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from proactivellm.policy.base import SILENCE, Policy
from proactivellm.policy.options import (
    check_choice,
    check_int,
    check_stride,
    option,
    parse_float,
    parse_int,
)
from proactivellm.policy.reason import Reason


def parse_trace(text: str) -> tuple[int, ...]:
    """Read a trace: ``1-2-4-4``, or the name of a file with one JSON list of whole numbers.

    ValueError when it is neither.
    """
    if re.fullmatch(r"[0-9]+(-[0-9]+)*", text):
        return tuple(parse_int(part) for part in text.split("-"))
    try:
        trace = json.loads(Path(text).read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(
            f"must be numbers such as 1-2-4-4 or a readable file, got {text!r}"
        ) from None
    except ValueError:
        raise ValueError(f"must be a file with one JSON list, but {text!r} is not JSON") from None
    if not isinstance(trace, list) or any(type(units) is not int for units in trace):
        raise ValueError(
            f"must be one JSON list of whole numbers, but {text!r} holds something else; "
            "a policy replays one trace, so store one list per file"
        )
    return tuple(trace)


def format_trace(trace: tuple[int, ...]) -> str:
    """Write a trace inline, the inverse of `parse_trace`."""
    return "-".join(map(str, trace))


class Scheduled(Policy):
    """Writes as soon as the required units are read: that is its rule, and no lane is left open."""

    early: ClassVar[Reason] = Reason.READ_RULE

    def settle(self, units_read: int, words_written: int) -> Reason:
        required = self.required_units(words_written)
        ready = required is not None and units_read >= required
        return Reason.WRITE_RULE if ready else self.early


@dataclass(frozen=True, kw_only=True)
class WaitK(Scheduled):
    """Read k units, then write one word for each unit read.

    STACL, Ma et al. 2019 (arXiv 1810.08398). Where a word lasts several units, give a stride: word
    n (from 1) is then written when k + stride * (n - 1) units, rounded up, are read. So wait-3 with
    a fixed pre-decision of 2 units (Ma et al. 2020, arXiv 2011.02048) is `wait-k:6,stride=2`.
    """

    name: ClassVar[str] = "wait-k"
    main_key: ClassVar[str | None] = "k"

    k: int = option()
    stride: float = option(default=1.0, parse=parse_float)
    silence: str = option(default="wait", parse=str)

    def __post_init__(self) -> None:
        check_int("k", self.k, 1)
        check_stride(self.stride)
        check_choice("silence", self.silence, SILENCE)

    @property
    def min_lag(self) -> int:
        return self.k

    @property
    def max_lag(self) -> int | None:
        return self.k


@dataclass(frozen=True, kw_only=True)
class SentenceWaitK(WaitK):
    """Wait-k that starts anew at each sentence end of the source.

    A control for sources of several sentences: when a sentence has been read, its translation is
    written to its end, then k units of the next one are read. An end is judged by the text of a
    unit, which audio has not (`output.sentences`); sentences are paired by `session.sentences`.
    """

    name: ClassVar[str] = "sentence-wait-k"
    restarts: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Offline(Scheduled):
    """Read the whole source, then write."""

    name: ClassVar[str] = "offline"

    def required_units(self, words_written: int) -> int | None:
        return None


@dataclass(frozen=True, kw_only=True)
class Fixed(Scheduled):
    """Replay one trace: the units read before each word; words beyond it wait for the whole source.

    The trace belongs to one source: one policy per instance.
    """

    name: ClassVar[str] = "fixed"
    main_key: ClassVar[str | None] = "trace"

    # `g` per target word, non-decreasing, from 1. In a spec inline (``fixed:1-2-4-4``) or from a
    # file with one JSON list (``fixed:trace=FILE``).
    trace: tuple[int, ...] = option(parse=parse_trace, write=format_trace)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trace", tuple(self.trace))
        if not self.trace:
            raise ValueError("trace must name at least one word, got an empty one")
        for units in self.trace:
            check_int("every entry of trace", units, 1)
        if any(later < earlier for earlier, later in zip(self.trace, self.trace[1:], strict=False)):
            raise ValueError(
                f"trace must never decrease, got {format_trace(self.trace)}: "
                "what has been read stays read"
            )

    def required_units(self, words_written: int) -> int | None:
        return self.trace[words_written] if words_written < len(self.trace) else None
