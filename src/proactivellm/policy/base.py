"""The two values of a decision: Observation (what a step shows) and Policy (READ or WRITE).

Shape suffixes: B = lanes that probe in this step, U = most source units read by any of them.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from proactivellm.policy.options import (
    Scalar,
    check_int,
    check_stride,
    option,
    parse_float,
    parse_optional_int,
    to_scalar,
)

WHOLE_SOURCE = torch.iinfo(torch.int64).max  # in required_units_B: wait for the end of the source
STRIDE_PARTS = 1000  # a stride is a fraction with this denominator at most
_BOUNDS = ("min_lag", "max_lag", "stride")  # the last keys of a spec


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the lanes that probe in this step show to a policy.

    Args:
        units_read_B: Source units read so far, int64.
        words_written_B: Target words (tokens, when decisions fall at token boundaries) written
            so far, int64.
        source_finished_B: Whether the whole source has been read, bool.
        entropy_B: Entropy of the next-token distribution in nats, or None when not asked for.
        max_prob_B: Largest next-token probability, or None when not asked for.
        attention_BU: Share of the source attention on each unit in view, in reading order; rows
            sum to 1 (prompt and sinks removed) and are 0 beyond the units read. None when not
            asked for.
        units_dropped_B: Units read that are no longer in view, int64; None: none.
    """

    units_read_B: Tensor
    words_written_B: Tensor
    source_finished_B: Tensor
    entropy_B: Tensor | None = None
    max_prob_B: Tensor | None = None
    attention_BU: Tensor | None = None
    units_dropped_B: Tensor | None = None

    @property
    def units_in_view_B(self) -> Tensor:
        """Units read that the model still sees, int64."""
        if self.units_dropped_B is None:
            return self.units_read_B
        return self.units_read_B - self.units_dropped_B


class Policy(ABC):
    """Decides READ or WRITE for every lane of a step; a frozen value without state.

    A subclass is a frozen, keyword-only dataclass. Its fields are the keys of its spec, so there
    is no second list of them anywhere. The first line of its docstring is its help.

    `name` is the name in a spec, `main_key` the key that may stand without its name
    (``entropy:1.2``), and `needs` a subset of {"entropy", "confidence", "attention"}: the
    statistics that must be computed for it.

    The lag of a lane is the units read less `stride` units for each word written.
    """

    name: ClassVar[str]
    main_key: ClassVar[str | None] = None
    needs: ClassVar[frozenset[str]] = frozenset()

    @property
    def min_lag(self) -> int:
        """No word is written at a smaller lag."""
        return 1

    @property
    def max_lag(self) -> int | None:
        """The next word is written at once at this lag; None: never."""
        return None

    @property
    def stride(self) -> float:
        """Source units for each target word."""
        return 1.0

    @property
    def every(self) -> int:
        """Decisions fall only where a multiple of so many units, or the whole source, is read."""
        return 1

    @classmethod
    def option_fields(cls) -> tuple[dataclasses.Field[Any], ...]:
        """Return the fields, which are the keys of the spec: main key first, bounds last."""

        def rank(field: dataclasses.Field[Any]) -> tuple[bool, bool]:
            return field.name in _BOUNDS, field.name != cls.main_key

        return tuple(sorted(dataclasses.fields(cls), key=rank))  # type: ignore[arg-type]

    @property
    def options(self) -> dict[str, Scalar]:
        """Every key of the spec with its value, defaults included, as JSON scalars."""
        fields = self.option_fields()
        return {field.name: to_scalar(field, getattr(self, field.name)) for field in fields}

    @property
    def spec(self) -> str:
        """Canonical text; ``parse_policy(policy.spec) == policy``.

        Keys at their default are left out, except min_lag, which every table of scores needs.
        """
        fields = self.option_fields()
        if not fields:
            return self.name
        texts = {
            field.name: field.metadata["write"](getattr(self, field.name))
            for field in fields
            if field.name == "min_lag" or getattr(self, field.name) != field.default
        }
        if [*texts] == [self.main_key]:
            return f"{self.name}:{texts.popitem()[1]}"
        return f"{self.name}:" + ",".join(f"{key}={text}" for key, text in texts.items())

    def required_units(self, words_written: int) -> int | None:
        """Return how many units must be read before the next word may be considered.

        Args:
            words_written: Target words written so far.

        Returns:
            Units, at least 1; None for the whole source. Below it a session READs unprobed.
        """
        return max(1, self.min_lag + self.pace(words_written))

    def required_units_B(self, words_written_B: Tensor) -> Tensor:
        """Return `required_units` of every lane.

        Args:
            words_written_B: Target words written so far, int64.

        Returns:
            Units, int64; WHOLE_SOURCE where `required_units` is None.
        """
        return (self.pace_B(words_written_B) + self.min_lag).clamp(min=1)

    def pace(self, words_written: int) -> int:
        """Return the units that the words written stand for: `stride` each, rounded up.

        Args:
            words_written: Target words written so far.
        """
        units, words = self._stride
        return -(-words_written * units // words)

    def pace_B(self, words_written_B: Tensor) -> Tensor:
        """Return `pace` of every lane.

        Args:
            words_written_B: Target words written so far, int64.
        """
        if self.stride == 1:
            return words_written_B
        units, words = self._stride
        return -(-words_written_B * units).div(words, rounding_mode="floor")

    @cached_property
    def _stride(self) -> tuple[int, int]:
        """The stride as units and words: whole numbers, so that nothing depends on rounding."""
        return Fraction(self.stride).limit_denominator(STRIDE_PARTS).as_integer_ratio()

    def overdue(self, units_read: int, words_written: int) -> bool:
        """Return whether `max_lag` forces the next word to be written.

        Args:
            units_read: Source units read so far.
            words_written: Target words written so far.
        """
        return self.max_lag is not None and units_read >= self.max_lag + self.pace(words_written)

    def decide(self, observation: Observation) -> Tensor:
        """Decide for every lane.

        In this order: a finished source WRITEs; fewer units than required READ; `max_lag` units
        ahead WRITE; otherwise the rule of the policy decides.

        Args:
            observation: The step, with all that `needs` names.

        Returns:
            bool [B], True = WRITE, False = READ.

        Raises:
            ValueError: When a needed statistic is missing.
        """
        units_B, words_B = observation.units_read_B, observation.words_written_B
        write_B = self._write(observation)
        if self.max_lag is not None:
            write_B = write_B | (units_B >= self.pace_B(words_B) + self.max_lag)
        ready_B = units_B >= self.required_units_B(words_B)
        return observation.source_finished_B | (ready_B & write_B)

    @abstractmethod
    def _write(self, observation: Observation) -> Tensor:
        """The rule itself, bounds aside: bool [B], True = WRITE."""

    def _needed(self, value: Tensor | None, statistic: str) -> Tensor:
        if value is None:
            raise ValueError(f"policy {self.name} needs {statistic}, which was not computed")
        return value


@dataclass(frozen=True, kw_only=True)
class BoundedPolicy(Policy):
    """A policy with bounds around its rule (the range constraint of LSG, Guo et al. 2025).

    Args:
        min_lag: Word n (from 1) is never written before min_lag + stride * (n - 1) units (rounded
            up) are read, nor before the first unit. Default 1; 0 and below loosen the bound.
        max_lag: Word n is written at once when max_lag + stride * (n - 1) units (rounded up) are
            read. Default: no bound.
        stride: Source units for each target word, in thousandths: 1 (the default) where units are
            words; of media about the units that a word lasts.
    """

    min_lag: int = option(default=1)
    max_lag: int | None = option(default=None, parse=parse_optional_int)
    stride: float = option(default=1.0, parse=parse_float)

    def __post_init__(self) -> None:
        check_stride(self.stride)
        check_int("min_lag", self.min_lag)
        if self.max_lag is None:
            return
        check_int("max_lag", self.max_lag, 1)
        if self.min_lag > self.max_lag:
            raise ValueError(
                f"min_lag={self.min_lag} is above max_lag={self.max_lag}: "
                "no word could be written in between; lower min_lag or raise max_lag"
            )


class DraftPolicy(Policy):
    """A policy that drafts ahead after each READ and commits the part of the draft it trusts.

    `decide` gives the bounds only (True = the lane may commit); `commit` is the rule. A session
    forces one word where `overdue` holds and nothing is committed.
    """

    @property
    @abstractmethod
    def lookahead(self) -> int:
        """Tokens drafted after each READ."""

    @property
    @abstractmethod
    def history(self) -> int:
        """How many hypotheses `commit` wants."""

    @abstractmethod
    def commit(self, drafts: Sequence[Sequence[int]]) -> int:
        """Return how many leading tokens of the newest hypothesis to write.

        Args:
            drafts: Hypotheses as token ids that follow the committed prefix, oldest first, newest
                last. Fewer than `history` when the stream is young; more are ignored.
        """

    def _write(self, observation: Observation) -> Tensor:
        return torch.ones_like(observation.source_finished_B)
