"""AlignAtt, plain or as cascades of large models run it: heads that vote, on what stands out.

Legend: B = lanes, N = chosen heads, U = most units in view of any lane.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from proactivellm.policy.attention import FrontierPolicy
from proactivellm.policy.evidence import Attention, Evidence, Recurrent, Rows, Seen
from proactivellm.policy.options import check_choice, check_number, option, parse_float

# Added to a standard deviation. With next to nothing there, two tokens would give every unit a
# deviation of 1 or -1, however little changed, and rounding would choose among them.
_FLOOR = 0.01


@dataclass(frozen=True)
class HeadAttention(Attention):
    """Attention of each head on each unit in view, [P, N, U]; rows sum to at most 1.

    What is lacking is on prompt, target and sinks.
    """

    def of(self, rows: Rows) -> Tensor:
        """See `Rows.head_attention`."""
        return rows.head_attention(self.heads)


@dataclass(frozen=True)
class HeadMoments(Attention, Recurrent):
    """`HeadAttention` over the target tokens that saw a unit, this one included, [P, 3, N, U].

    Their number, the mean, and the sum of squared deviations (Welford 1962). A unit that was just
    read has been seen by this token alone.
    """

    def of(self, rows: Rows) -> Tensor:
        """The moments kept, and this token."""
        weights_PNU = rows.head_attention(self.heads)
        shape = (3, *weights_PNU.shape[1:])
        pasts = [_padded(past, weights_PNU.new_zeros(shape)) for past in rows.pasts(self)]
        count_PNU, mean_PNU, squares_PNU = torch.stack(pasts).unbind(1)
        count_PNU = count_PNU + 1
        before_PNU = weights_PNU - mean_PNU
        mean_PNU = mean_PNU + before_PNU / count_PNU
        squares_PNU = squares_PNU + before_PNU * (weights_PNU - mean_PNU)
        return torch.stack([count_PNU, mean_PNU, squares_PNU], dim=1)


@dataclass(frozen=True, kw_only=True)
class AlignAtt(FrontierPolicy):
    """Write when the most attended source unit is none of the newest.

    AlignAtt, Papi et al. 2023 (arXiv 2305.11408), on the self-attention of a decoder. With
    `norm=running` attention is taken as its deviation from what earlier target tokens had for the
    same unit, with `pool=median` each head chooses a unit and the median of them counts, with
    `min_mass` a token that hardly looks at older units waits, as Alignatt4LLM does (IWSLT 2026).
    """

    name: ClassVar[str] = "alignatt"
    main_key: ClassVar[str | None] = "frontier"

    # Whether a unit's attention counts as it is, or as a deviation, in standard deviations.
    norm: str = option(default="none", parse=str)
    # Whether heads are averaged, or each chooses a unit.
    pool: str = option(default="mean", parse=str)
    # Attention on all units older than the frontier, mean over heads, 0 to 1.
    min_mass: float = option(default=0.0, parse=parse_float)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("norm", self.norm, ("none", "running"))
        check_choice("pool", self.pool, ("mean", "median"))
        check_number("min_mass", self.min_mass)
        if not 0 <= self.min_mass < 1:
            raise ValueError(f"min_mass must be at least 0 and below 1, got {self.min_mass}")

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        looks: tuple[Evidence, ...] = (Attention(self.heads),)
        if self.norm != "none" or self.pool != "mean" or self.min_mass:
            looks = (*looks, HeadAttention(self.heads))
        return (*looks, HeadMoments(self.heads)) if self.norm == "running" else looks

    def writes(self, seen: Seen) -> Tensor:
        older_B = seen.units_in_view_B - self.frontier
        writes_B = self.most_attended_B(seen) < older_B
        if self.min_mass:
            mass_BU = seen[HeadAttention(self.heads)].mean(dim=1)
            unit_U = torch.arange(mass_BU.shape[1], device=mass_BU.device)
            mass_B = (mass_BU * (unit_U < older_B.unsqueeze(1))).sum(dim=1)
            writes_B = writes_B & (mass_B >= self.min_mass)
        return writes_B

    def most_attended_B(self, seen: Seen) -> Tensor:
        """Return the index of the unit in view that counts as the most attended, [B]."""
        if self.norm == "none" and self.pool == "mean":
            return self.attention_BU(seen).argmax(dim=1)
        scores_BNU = seen[HeadAttention(self.heads)]
        if self.norm == "running":
            scores_BNU = deviations(scores_BNU, seen[HeadMoments(self.heads)])
            unit_U = torch.arange(scores_BNU.shape[2], device=scores_BNU.device)
            unread_BU = unit_U >= seen.units_in_view_B.unsqueeze(1)
            scores_BNU = scores_BNU.masked_fill(unread_BU.unsqueeze(1), float("-inf"))
        if self.pool == "mean":
            return scores_BNU.mean(dim=1).argmax(dim=1)
        return scores_BNU.argmax(dim=2).median(dim=1).values  # of an even number, the smaller


def deviations(weights_BNU: Tensor, moments_B3NU: Tensor) -> Tensor:
    """How far attention is from its mean, in standard deviations: 0 on what was just read."""
    count_BNU, mean_BNU, squares_BNU = moments_B3NU.unbind(1)
    deviation_BNU = (squares_BNU / count_BNU.clamp(min=1)).sqrt()
    return (weights_BNU - mean_BNU) / (deviation_BNU + _FLOOR)


def _padded(past: Tensor | None, empty: Tensor) -> Tensor:
    """What a lane keeps, with zeros for units read since and up to those of its neighbours."""
    return empty if past is None else F.pad(past.to(empty), (0, empty.shape[-1] - past.shape[-1]))
