"""The learned policy: a head on the model's own state says whether its next token will do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Self, cast

from torch import Tensor

from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.evidence import Evidence, Seen
from proactivellm.policy.head import Head, head_of
from proactivellm.policy.options import check_number, option, parse_float

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM


@dataclass(frozen=True, kw_only=True)
class Learned(ThresholdPolicy):
    """Write when a head on the model's own state finds the next token acceptable.

    The head's logit, and `lag_weight` for each unit of lag, make a probability, which is compared
    with the threshold, above 0 and below 1. Each unit of lag makes a WRITE likelier: without that
    term a lane that is late waits for ever.
    """

    name: ClassVar[str] = "learned"

    lag_weight: float = option(default=0.5, parse=parse_float)
    # Of the model that the policy runs on (`bound_to`); no part of what it is called.
    head: Head | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(0 < self.threshold < 1, "above 0 and below 1")
        check_number("lag_weight", self.lag_weight)
        if self.lag_weight < 0:
            raise ValueError(f"lag_weight must be 0 or more, got {self.lag_weight}")

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        return () if self.head is None else self.head.evidence

    def bound_to(self, model: StreamingCausalLM) -> Self:
        return cast(Self, _with_head(self, head_of(model)))

    def statistic(self, seen: Seen) -> Tensor:
        if self.head is None:
            raise ValueError("it has no head: `bound_to` gives it that of a model")
        lag_B = seen.units_read_B.double() - self.stride * seen.words_written_B.double()
        return (self.head.logit(seen) + self.lag_weight * lag_B).sigmoid()

    def writes(self, seen: Seen) -> Tensor:
        return self.statistic(seen) >= self.threshold


@lru_cache(maxsize=256)  # one object for all lanes, so that they are asked together
def _with_head(policy: Learned, head: Head) -> Learned:
    return replace(policy, head=head)
