"""What layers do with the tokens of what is seen, which the text around them need not share.

A control is an input of the forward: the attention function asks it, as it follows a plan. Legend:
B = lanes of a part (or sequences), Q = new tokens of a lane, K = entries, H = heads, D = head
dimension.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from proactivellm.forward.lanes import NewTokens
from proactivellm.forward.plan import StepPlan

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Seen:
    """Which tokens of a part of a plan lie in space."""

    rows_BQ: Tensor  # bool, of the new tokens
    entries_BK: Tensor  # bool, of the entries
    own_BQ: Tensor  # place among the entries of each new token
    last_B: Tensor  # the last row that asks for a distribution; -1: none does

    @property
    def text_QK(self) -> Tensor:
        """Where text looks at what is seen: bool [B, 1, Q, K], as masks are."""
        return (~self.rows_BQ[:, :, None] & self.entries_BK[:, None, :])[:, None]


class Asked(NamedTuple):
    """A call of attention, as `attention.attend` takes it."""

    query: Tensor  # [B, H, Q, D]
    key: Tensor  # [B, G, K, D], of G key/value heads
    value: Tensor  # likewise
    mask: Tensor | None  # bool [B, 1, Q, K]; None: all is visible
    scores: dict[str, Any]  # how scores are made


class StepControl(ABC):
    """A control in one forward."""

    def __init__(self, parts: Sequence[Seen]) -> None:
        self.parts = parts

    @abstractmethod
    def mask(self, layer: int, part: int, mask: Tensor | None) -> Tensor | None:
        """What the tokens of a part see in a layer, of what they may: bool [B, 1, Q, K]."""

    @abstractmethod
    def attend(self, layer: int, part: int, asked: Asked) -> Tensor:
        """Attention of a part in a layer under that mask, as `attention.attend`: [B, Q, H, D]."""


class Control(ABC):
    """What becomes of the tokens of what is seen inside the layers of a model."""

    name: ClassVar[str]
    trains: ClassVar[bool]  # whether a model can be trained so

    @abstractmethod
    def attach(self, model: "PreTrainedModel") -> None:
        """Prepares a model for it; ValueError if it cannot."""

    @abstractmethod
    def detach(self) -> None:
        """Leaves the model as it was."""

    @abstractmethod
    def begin(self, parts: Sequence[Seen], rows: Tensor) -> StepControl:
        """Of a forward.

        Args:
            parts: of its plan.
            rows: which of the tokens lie in space, bool as the decoder takes them: [1, T] or
                [B, S].
        """


def seen_parts(plan: StepPlan, new: NewTokens, kinds_4N: Tensor) -> list[Seen]:
    """What lies in space of the new tokens and of the entries of each part of a plan."""
    device = kinds_4N.device
    last = np.full(len(new.lanes), -1)
    last[new.probing] = new.within  # of several rows of a lane the last one stays
    found = []
    for part in plan.parts:
        counts = new.counts[part.inputs][:, None]
        within_BQ = np.minimum(np.arange(int(counts.max())), counts - 1)
        rows_BQ = new.kinds_4T[3][new.first[part.inputs][:, None] + within_BQ] > 0
        own_BQ = new.lengths[part.inputs][:, None] + within_BQ
        there_BK = torch.arange(part.slots.shape[1], device=device) < part.ends[:, None]
        found.append(
            Seen(
                torch.from_numpy(rows_BQ).to(device),
                (kinds_4N[3][part.slots] > 0) & there_BK,
                torch.from_numpy(own_BQ).to(device),
                torch.from_numpy(last[part.inputs]).to(device),
            )
        )
    return found


def begin_step(
    control: Control | None, plan: StepPlan, new: NewTokens, kinds_4N: Tensor
) -> StepControl | None:
    """A control in the forward of a step; None if there is none."""
    if control is None:
        return None
    rows_T = torch.from_numpy(new.kinds_4T[3] > 0).to(kinds_4N.device)
    return control.begin(seen_parts(plan, new, kinds_4N), rows_T[None])


def begin_whole(control: Control, seen_BS: Tensor) -> StepControl:
    """A control in one forward over whole sequences, of which the tokens given lie in space."""
    place_BS = torch.arange(seen_BS.shape[1], device=seen_BS.device).expand(seen_BS.shape)
    last_B = torch.full((len(seen_BS),), -1, device=seen_BS.device)
    return control.begin([Seen(seen_BS, seen_BS, place_BS, last_B)], seen_BS)


@contextmanager
def looking(control: Control, model: "PreTrainedModel", seen_BS: Tensor) -> Iterator[StepControl]:
    """A model that looks so for as long as the context lasts, at whole sequences."""
    control.attach(model)
    try:
        yield begin_whole(control, seen_BS)
    finally:
        control.detach()


def check_control(control: Control | None, speculates: bool, joint: bool = False) -> None:
    """Raises ValueError where a control does not go with a model (`joint`) or its speculation."""
    if control is None:
        return
    if joint:
        raise ValueError(f"{control}: the model does its attention by itself")
    if speculates and not control.trains:
        raise ValueError(f"{control} decides at each token: leave speculation out")


def whole_mask(mask: Tensor | None, seen: Seen) -> Tensor:
    """A mask [B, 1, Q, K] where all is visible, too."""
    if mask is not None:
        return mask
    (lanes, rows), entries = seen.rows_BQ.shape, seen.entries_BK.shape[1]
    return torch.ones(lanes, 1, rows, entries, dtype=torch.bool, device=seen.rows_BQ.device)
