"""The learned policy made stochastic: it draws READ or WRITE, as rollouts need it.

Legend: B = lanes that are asked, N = decisions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from proactivellm.policy.evidence import Seen
from proactivellm.policy.head import Head
from proactivellm.policy.learned import Learned

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledLearned(Learned):
    """WRITE with probability sigmoid((s - s0) / temperature), for one stream alone.

    s is the logit of what `learned` compares with its threshold, and s0 that of the threshold: as
    the temperature falls the draw becomes the rule of `learned`.
    """

    temperature: float = 1.0
    # Draws a number for each time that the rule is asked, whatever other streams do.
    rng: np.random.Generator = field(default_factory=np.random.default_rng, repr=False)

    @classmethod
    def like(cls, policy: Learned, head: Head, temperature: float = 1.0) -> Self:
        """The stochastic form of a policy, with that head."""
        values: dict[str, Any] = {f.name: getattr(policy, f.name) for f in policy.option_fields()}
        return cls(head=head, temperature=temperature, **values)

    def seeded(self, seed: Sequence[int]) -> Self:
        """The same for a stream of its own."""
        return replace(self, rng=np.random.default_rng(seed))

    def bound_to(self, model: StreamingCausalLM) -> Self:
        return self  # it has its head, which need not be that of the model

    def writes(self, seen: Seen) -> Tensor:
        assert self.head is not None
        logit_B = write_logit(
            self, self.temperature, self.head.logit(seen), seen.units_read_B, seen.words_written_B
        )
        draw_B = torch.from_numpy(self.rng.random(len(logit_B))).to(logit_B.device)
        return draw_B < logit_B.sigmoid()


def write_logit(
    policy: Learned, temperature: float, head_N: Tensor, units_N: Tensor, words_N: Tensor
) -> Tensor:
    """Logit of WRITE, float64 [N], of logits of a head, units read and words written."""
    lag_N = units_N.double() - policy.stride * words_N.double()
    start = math.log(policy.threshold / (1 - policy.threshold))
    return (head_N + policy.lag_weight * lag_N - start) / temperature


def log_prob(logit_N: Tensor, write_N: Tensor) -> Tensor:
    """Log-probability [N] of what was done, where `logit_N` is that of WRITE."""
    return F.logsigmoid(torch.where(write_N, logit_N, -logit_N))
