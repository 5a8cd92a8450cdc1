"""What lanes bring to a step and get back, and their tokens packed in one row.

Legend: T = new tokens of all lanes, B = lanes of the step, P = lanes that probe, L = layers,
H = heads, K = entries of a lane, V = vocabulary, D = model width, A = axes of a position.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from proactivellm.core.layout import Layout


class Piece(NamedTuple):
    """A run of tokens of one group.

    Attributes:
        group: name of the group.
        unit: source unit that it belongs to, from 1; 0 = none (prompt, target).
        tokens: ids, or embeddings [n, D].
    """

    group: str
    unit: int
    tokens: Sequence[int] | Tensor


@dataclass(frozen=True, kw_only=True)
class LaneInput:
    """What one lane brings to a step.

    Attributes:
        lane: which lane of the cache.
        pieces: new tokens of any groups, in the order in which they arrive.
        counts: tokens of each group that the lane holds before this step.
        probe: row among the new tokens that asks for a distribution, -1 = the last one; None = the
            lane does not probe.
        added: new tokens of each group.
        size: new tokens in all.
        last_unit: largest unit among the pieces.
    """

    lane: int
    pieces: Sequence[Piece] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    probe: int | None = None
    added: dict[str, int] = field(init=False)
    size: int = field(init=False)
    last_unit: int = field(init=False)

    def __post_init__(self) -> None:
        # Counted once: schedulers, cache and forward ask for these many times in a step.
        added: dict[str, int] = {}
        last_unit = 0
        for group, unit, tokens in self.pieces:
            added[group] = added.get(group, 0) + len(tokens)
            if unit > last_unit:
                last_unit = unit
        size, set_field = sum(added.values()), object.__setattr__
        set_field(self, "added", added)
        set_field(self, "size", size)
        set_field(self, "last_unit", last_unit)
        if self.probe is not None:
            if not -size <= self.probe < size:
                raise ValueError(f"lane {self.lane}: row {self.probe} of {size} cannot probe")
            set_field(self, "probe", self.probe % size)


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
        first: packed index of the first new token of each, [B].
        places: place of every new token among the entries of its lane, its stamp of arrival, [T].
        ids: token ids, 0 in place of features, [T].
        features: packed index of the first token, and embeddings [n, D].
        kinds_3T: group, position (on the first axis) and unit of every new token.
        position_AT: positions, as the decoder takes them.
        probing: indices of the inputs that probe, [P].
        within: row of the probe among the new tokens of its lane, [P].
        rows: its packed index, [P].
    """

    lanes: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray
    first: np.ndarray
    places: np.ndarray
    ids: np.ndarray
    features: Sequence[tuple[int, Tensor]]
    kinds_3T: np.ndarray
    position_AT: np.ndarray
    probing: list[int]
    within: list[int]
    rows: list[int]


def place(lane: LaneInput, layout: Layout) -> list[np.ndarray]:
    """Positions of the new tokens of a lane, [A, n] for each of its pieces.

    Raises:
        ValueError: if one of its groups is none of the layout's.
    """
    try:
        numbers, index = layout.numbers(lane.counts), layout.index
        return [layout.positions(index[p.group], len(p.tokens), numbers) for p in lane.pieces]
    except KeyError as error:
        raise ValueError(
            f"layout {layout.name!r} has no group {error}, but {', '.join(layout.groups)}"
        ) from None


def pack_lanes(inputs: Sequence[LaneInput], lengths: Sequence[int], layout: Layout) -> NewTokens:
    """Pack the new tokens of all lanes.

    Args:
        inputs: what each lane brings; at least one token each.
        lengths: entries of every lane of the cache.
        layout: gives positions.

    Raises:
        ValueError: if a group is none of the layout's.
    """
    ids: list[int] = []
    features: list[tuple[int, Tensor]] = []
    groups: list[int] = []
    units: list[int] = []
    positions: list[np.ndarray] = []
    rows: list[int] = []
    for lane in inputs:
        if lane.probe is not None:
            rows.append(len(ids) + lane.probe)
        positions += place(lane, layout)
        for group, unit, tokens in lane.pieces:
            n = len(tokens)
            groups += [layout.index[group]] * n
            units += [unit] * n
            if isinstance(tokens, Tensor):
                features.append((len(ids), tokens))
                ids += [0] * n
            else:
                ids += tokens
    counts = np.array([lane.size for lane in inputs])
    before = np.array([lengths[lane.lane] for lane in inputs])
    first = counts.cumsum() - counts
    position_AT = np.concatenate(positions, axis=1)
    return NewTokens(
        lanes=np.array([lane.lane for lane in inputs]),
        counts=counts,
        lengths=before,
        first=first,
        places=np.arange(len(ids)) + np.repeat(before - first, counts),
        ids=np.array(ids, dtype=np.int64),
        features=features,
        kinds_3T=np.array((groups, position_AT[0], units), dtype=np.int64),
        position_AT=position_AT,
        probing=[i for i, lane in enumerate(inputs) if lane.probe is not None],
        within=[lane.probe for lane in inputs if lane.probe is not None],
        rows=rows,
    )
