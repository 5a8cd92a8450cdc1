"""The interface of policies: bounds in whole numbers, the evidence they want, a rule over that.

The bounds of a lane are settled first, on the host; only what they leave open is asked of the rule,
for many lanes at once. Shape suffix: B = lanes that are asked.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from proactivellm.policy.evidence import Evidence, Seen
from proactivellm.policy.options import (
    Scalar,
    check_choice,
    check_int,
    check_stride,
    option,
    parse_float,
    parse_optional_int,
    to_scalar,
)
from proactivellm.policy.reason import Reason

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM

STRIDE_PARTS = 1000  # a stride is a fraction with this denominator at most
_BOUNDS = ("min_lag", "max_lag", "stride", "silence")  # the last keys of a spec
SILENCE = ("wait", "write")
_RULES = ("writes", "decide", "settle", "commit")  # a policy defines one of them at least


class Policy:
    """Decides READ or WRITE for the lanes of a step; a frozen value without state.

    A policy with options is a frozen, keyword-only dataclass whose fields are the keys of its spec.
    The first line of its docstring is its help. `name` is the name in a spec, `main_key` the key
    that may stand without its name (``entropy:1.2``). `writes` is the rule.

    The lag of a lane is the units read less `stride` units for each word written.
    """

    name: ClassVar[str] = ""
    main_key: ClassVar[str | None] = None
    restarts: ClassVar[bool] = False
    """Whether units and words are counted from where the sentence being written began.

    `required_units` alone decides then: the sentence is written to its end once its source has
    ended, and the next one begins there.
    """
    clairvoyant: ClassVar[bool] = False
    """Whether it looks at what is not read yet: for evaluation only, where the source is given."""
    early: ClassVar[Reason] = Reason.READ_MIN_LAG
    """Why a lane READs while fewer than `required_units` are read."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Those without a name are bases of others. What is missing would else be noticed in the
        # middle of a stream, by the first lane that its bounds leave open.
        if cls.name and all(getattr(cls, r, None) is getattr(Policy, r, None) for r in _RULES):
            raise TypeError(f"policy {cls.name!r} ({cls.__name__}) has no rule: define `writes`")

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What the rule looks at; a class attribute will do where it depends on no option."""
        return ()

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
    def silence(self) -> str:
        """What becomes of the next word while nobody speaks in the newest unit: wait or write."""
        return "wait"

    @property
    def waits_in_silence(self) -> bool:
        """Whether a lane READs whatever else holds while nobody speaks in the newest unit."""
        return self.silence == "wait"

    @property
    def every(self) -> int:
        """Decisions fall only where a multiple of so many units, or the whole source, is read."""
        return 1

    def required_units(self, words_written: int) -> int | None:
        """Return the units to be read before the next word may be considered; None: all there are.

        Below it, at least 1, a session READs unprobed.
        """
        return max(1, self.min_lag + self.pace(words_written))

    def pace(self, words_written: int) -> int:
        """Return the units that the words written stand for: `stride` each, rounded up."""
        units, words = self._stride
        return -(-words_written * units // words)

    @cached_property
    def _stride(self) -> tuple[int, int]:
        """The stride as units and words: whole numbers, so that nothing depends on rounding."""
        return Fraction(self.stride).limit_denominator(STRIDE_PARTS).as_integer_ratio()

    def overdue(self, units_read: int, words_written: int) -> bool:
        """Return whether `max_lag` forces the next word to be written."""
        return self.max_lag is not None and units_read >= self.max_lag + self.pace(words_written)

    def settle(self, units_read: int, words_written: int) -> Reason | None:
        """Return what the bounds alone say while there is source to read; None: ask the rule."""
        required = self.required_units(words_written)
        if required is None or units_read < required:
            return self.early
        return Reason.WRITE_MAX_LAG if self.overdue(units_read, words_written) else None

    def decide(self, seen: Seen) -> Tensor:
        """Return a code of `Reason` for every lane that `settle` leaves open, int64 [B].

        To be overridden by a policy that has more to tell than its rule's yes or no.
        """
        write, read = int(Reason.WRITE_RULE), int(Reason.READ_RULE)
        return torch.where(self.writes(seen), write, read)

    def writes(self, seen: Seen) -> Tensor:
        """The rule: bool [B], True = WRITE. Bounds are none of its business."""
        raise NotImplementedError("define `writes`")

    def bound_to(self, model: StreamingCausalLM) -> Self:
        """Return the policy as it runs on a model, with what it takes from there: else itself.

        ValueError where the model lacks it.
        """
        return self

    def check(self, model: StreamingCausalLM) -> None:
        """Refuse (ValueError) a policy without a name, or whose evidence the model cannot show."""
        if not self.name:
            raise ValueError(f"{type(self).__name__} has no name: give the class one, as in a spec")
        for evidence in self.evidence:
            if not isinstance(evidence, Evidence):
                raise ValueError(f"policy {self.spec!r}: {evidence!r} is no `Evidence`")
            try:
                evidence.check(model)
            except ValueError as error:
                raise ValueError(f"policy {self.spec!r}: {error}") from None

    @classmethod
    def option_fields(cls) -> tuple[dataclasses.Field[Any], ...]:
        """Return the fields, which are the keys of the spec: main key first, bounds last."""

        def rank(field: dataclasses.Field[Any]) -> tuple[bool, bool]:
            return field.name in _BOUNDS, field.name != cls.main_key

        if not dataclasses.is_dataclass(cls):
            return ()
        return tuple(
            sorted((f for f in dataclasses.fields(cls) if "write" in f.metadata), key=rank)
        )

    @property
    def options(self) -> dict[str, Scalar]:
        """Every key of the spec with its value, defaults included, as JSON scalars."""
        fields = self.option_fields()
        return {field.name: to_scalar(field, getattr(self, field.name)) for field in fields}

    @property
    def spec(self) -> str:
        """Canonical text; ``parse_policy(policy.spec) == policy``. Without options it is the name.

        Keys at their default are left out, except min_lag, which every table of scores needs.
        """
        texts = {
            field.name: field.metadata["write"](getattr(self, field.name))
            for field in self.option_fields()
            if field.name == "min_lag" or getattr(self, field.name) != field.default
        }
        if not texts:
            return self.name
        if [*texts] == [self.main_key]:
            return f"{self.name}:{texts.popitem()[1]}"
        return f"{self.name}:" + ",".join(f"{key}={text}" for key, text in texts.items())


@dataclass(frozen=True, kw_only=True)
class BoundedPolicy(Policy):
    """A policy with bounds around its rule (the range constraint of LSG, Guo et al. 2025)."""

    # Word n (from 1) is never written before min_lag + stride * (n - 1) units (rounded up) are
    # read, nor before the first unit; 0 and below loosen the bound.
    min_lag: int = option(default=1)
    # Word n is written at once when max_lag + stride * (n - 1) units (rounded up) are read. None:
    # no bound.
    max_lag: int | None = option(default=None, parse=parse_optional_int)
    # Source units for each target word, in thousandths: 1 where units are words; of media about the
    # units that a word lasts.
    stride: float = option(default=1.0, parse=parse_float)
    # Whether the next word waits while nobody speaks in the newest unit, as far as a front end that
    # passes silence on can tell.
    silence: str = option(default="wait", parse=str)

    def __post_init__(self) -> None:
        check_stride(self.stride)
        check_choice("silence", self.silence, SILENCE)
        check_int("min_lag", self.min_lag)
        if self.max_lag is None:
            return
        check_int("max_lag", self.max_lag, 1)
        if self.min_lag > self.max_lag:
            raise ValueError(
                f"min_lag={self.min_lag} is above max_lag={self.max_lag}: "
                "no word could be written in between; lower min_lag or raise max_lag"
            )


class DraftPolicy(Policy, ABC):
    """A policy that drafts ahead after each READ and commits the part of the draft it trusts.

    Its rule is `commit`; a session forces one word where `overdue` holds and nothing is committed.
    """

    early: ClassVar[Reason] = Reason.READ_RULE

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

        `drafts` are token ids that follow the committed prefix, newest last: fewer than `history`
        when the stream is young; more are ignored.
        """
