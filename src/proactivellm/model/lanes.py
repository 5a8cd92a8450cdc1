"""What lanes bring to a step and get back, and their tokens packed in one row.

Legend: T = new tokens of all lanes, B = lanes of the step, P = lanes that probe, L = layers,
H = heads, K = entries of a lane, V = vocabulary, D = model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from proactivellm.model.layout import Group, Layout

SourcePiece = tuple[int, Sequence[int] | Tensor]  # unit index, token ids or features [n, D]


@dataclass(frozen=True, kw_only=True)
class LaneInput:
    """What one lane brings to a step.

    Attributes:
        lane: which lane of the cache.
        source: newly read pieces, in order.
        target: target ids whose entries are not settled yet, in order.
        num_source: source tokens of the lane before this step.
        num_target: settled target tokens of the lane before this step.
        probes: whether the last target token asks for a distribution.
    """

    lane: int
    source: Sequence[SourcePiece] = ()
    target: Sequence[int] = ()
    num_source: int = 0
    num_target: int = 0
    probes: bool = False

    @property
    def num_new_source(self) -> int:
        """Source tokens in this step."""
        return sum(len(tokens) for _, tokens in self.source)

    @property
    def num_new(self) -> int:
        """Tokens in this step."""
        return self.num_new_source + len(self.target)

    def last_position(self, layout: Layout) -> int:
        """The largest position that the lane has used after this step.

        Args:
            layout: gives positions.
        """
        source = self.num_source + self.num_new_source
        return max(
            layout.position(Group.SOURCE, source - 1, self.num_target),
            layout.position(Group.TARGET, source, self.num_target + len(self.target) - 1),
        )


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What the probing lanes get back, in the order of the step's inputs.

    Attributes:
        logits_PV: next-token logits.
        hidden_PD: what the output layer made them from: the last hidden states.
        weights_LPHK: attention of the probing tokens, if asked for.
        unit_PK: unit of the entries attended to; 0 = prompt or target, -1 = not in use.
        num_units: most units that a probing lane has in its cache.
    """

    logits_PV: Tensor
    hidden_PD: Tensor
    weights_LPHK: Tensor | None
    unit_PK: Tensor | None
    num_units: int


@dataclass(frozen=True, kw_only=True)
class NewTokens:
    """The new tokens of a step, packed lane after lane.

    Attributes:
        lanes: lane of each of the step's inputs, [B].
        counts: new tokens of each, [B].
        lengths: entries each had before, [B].
        ids: token ids, 0 in place of features, [T].
        features: packed index of the first token, and embeddings [n, D].
        kinds_3T: group, position and unit of every new token.
    """

    lanes: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray
    ids: np.ndarray
    features: Sequence[tuple[int, Tensor]]
    kinds_3T: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """Packed index of the first new token of each input, [B]."""
        return np.cumsum(self.counts) - self.counts

    @property
    def last(self) -> np.ndarray:
        """Packed index of the last new token of each input, [B]."""
        return np.cumsum(self.counts) - 1

    @property
    def places(self) -> np.ndarray:
        """Place of every new token among the entries of its lane, its stamp of arrival, [T]."""
        return np.arange(len(self.ids)) + np.repeat(self.lengths - self.first, self.counts)


def pack_lanes(inputs: Sequence[LaneInput], lengths: Sequence[int], layout: Layout) -> NewTokens:
    """Pack the new tokens of all lanes.

    Args:
        inputs: what each lane brings; at least one token each.
        lengths: entries of every lane of the cache.
        layout: gives positions.

    Returns:
        The tokens.
    """
    ids: list[int] = []
    features: list[tuple[int, Tensor]] = []
    kinds: tuple[list[int], list[int], list[int]] = ([], [], [])
    for lane in inputs:
        num_source = lane.num_source
        for unit, tokens in lane.source:
            position = layout.position(Group.SOURCE, num_source, lane.num_target)
            _append(kinds, Group.SOURCE, position, unit, len(tokens))
            num_source += len(tokens)
            if isinstance(tokens, Tensor):
                features.append((len(ids), tokens))
                ids += [0] * len(tokens)
            else:
                ids += tokens
        position = layout.position(Group.TARGET, num_source, lane.num_target)
        _append(kinds, Group.TARGET, position, 0, len(lane.target))
        ids += lane.target
    lanes = [lane.lane for lane in inputs]
    return NewTokens(
        lanes=np.array(lanes),
        counts=np.array([lane.num_new for lane in inputs]),
        lengths=np.array([lengths[lane] for lane in lanes]),
        ids=np.array(ids, dtype=np.int64),
        features=features,
        kinds_3T=np.array(kinds, dtype=np.int64),
    )


def _append(
    kinds: tuple[list[int], list[int], list[int]], group: Group, position: int, unit: int, n: int
) -> None:
    groups, positions, units = kinds
    groups += [int(group)] * n
    positions += range(position, position + n)
    units += [unit] * n
