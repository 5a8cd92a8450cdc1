"""What lanes bring to a step and get back, and their tokens packed in one row.

Legend: T = new tokens of all lanes, B = lanes of the step, P = rows that probe, L = layers,
H = heads, K = entries of a lane, V = vocabulary, D = model width, A = axes of a position.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from proactivellm.core.layout import SOURCE, Layout
from proactivellm.core.positions import Grid, Reached, in_a_row

UNLIMITED = 2**62  # beyond any unit


class Piece(NamedTuple):
    """A run of tokens of one group."""

    group: str
    unit: int  # that it belongs to, from 1; 0 = none (prompt, target)
    tokens: Sequence[int] | Tensor  # ids, or embeddings [n, D]
    grid: Grid | None = None  # how embeddings lie in space


class Reach(NamedTuple):
    """How far back the new tokens of a lane see among the units; the prompt is always seen."""

    units: int  # before that of a token, or before a token without one
    read: int  # units that stand before a token without one
    recalled: tuple[int, ...] = ()  # further units, which tokens without one see


@dataclass(frozen=True, kw_only=True)
class LaneInput:
    """What one lane brings to a step."""

    lane: int
    pieces: Sequence[Piece] = ()  # of any groups, in the order in which they arrive
    counts: Mapping[str, int] = field(default_factory=dict)  # tokens it holds before, by group
    # Row among the new tokens that asks for a distribution, -1 = the last one; None: none does.
    probe: int | None = None
    rows: int = 1  # so many rows ask, from that one on
    # The newest unit that tokens without a unit (what is written) may see, where the lane holds
    # newer ones that it read ahead; None: they see all that arrived before them.
    horizon: int | None = None
    reach: Reach | None = None  # None: all units are seen
    added: dict[str, int] = field(init=False)  # new tokens, by group
    size: int = field(init=False)  # new tokens
    last_unit: int = field(init=False)  # largest unit among the pieces

    def __post_init__(self) -> None:
        # Counted once: schedulers, cache and forward ask for these many times in a step.
        added: dict[str, int] = {}
        last_unit = 0
        for group, unit, tokens, _ in self.pieces:
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
            if not 1 <= self.rows <= size - self.probe:
                raise ValueError(
                    f"lane {self.lane}: {self.rows} rows from {self.probe} of {size} cannot probe"
                )


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What the probing lanes get back, in the order of the step's inputs and of their rows."""

    logits_PV: Tensor  # of the next token; of one that is never written (`read_token`) -inf
    hidden_PD: Tensor  # the last hidden states, which the logits are made from
    weights_LPHK: Tensor | None  # attention of the probing tokens, if asked for
    unit_PK: Tensor | None  # unit of each entry; 0 = prompt or target, -1 = not in use
    num_units: int  # most units that a probing lane has in its cache
    read_P: Tensor | None = None  # the logit that `read_token` had, of models that have the token

    def forbidding(self, read_id: int | None) -> "StepOutput":
        """With the logit of a token set apart, so that nothing can choose it; None: itself."""
        if read_id is None:
            return self
        read_P = self.logits_PV[:, read_id].clone()
        self.logits_PV[:, read_id] = -torch.inf
        return replace(self, read_P=read_P)

    def at(self, rows: Sequence[int]) -> "StepOutput":
        """Only these rows; itself if they are all of them."""
        if list(rows) == list(range(len(self.logits_PV))):
            return self
        rows_R = torch.tensor(rows, device=self.logits_PV.device)
        return StepOutput(
            logits_PV=self.logits_PV[rows_R],
            hidden_PD=self.hidden_PD[rows_R],
            weights_LPHK=None if self.weights_LPHK is None else self.weights_LPHK[:, rows_R],
            unit_PK=None if self.unit_PK is None else self.unit_PK[rows_R],
            num_units=self.num_units,
            read_P=None if self.read_P is None else self.read_P[rows_R],
        )


@dataclass(frozen=True, kw_only=True)
class NewTokens:
    """The new tokens of a step, packed lane after lane."""

    lanes: np.ndarray  # lane of each of the step's inputs, [B]
    counts: np.ndarray  # new tokens of each, [B]
    lengths: np.ndarray  # entries that each had before, [B]
    first: np.ndarray  # packed index of the first new token of each, [B]
    places: np.ndarray  # of every new token among the entries of its lane: its arrival stamp, [T]
    ids: np.ndarray  # 0 in place of features, [T]
    features: Sequence[tuple[int, Tensor]]  # packed index of the first token, embeddings [n, D]
    # Group, position (on the first axis), unit of every new token, and whether it lies in space.
    kinds_4T: np.ndarray
    horizon_T: np.ndarray | None  # the newest unit that each may see; None: none is limited
    oldest_T: np.ndarray | None  # the oldest one, likewise
    recalled: Sequence[tuple[int, ...]]  # older ones that tokens without a unit see, [B]
    position_AT: np.ndarray  # three axes where a token lies in space, else one
    reached: Sequence[Reached | None]  # of each input's layout, when these have arrived, [B]
    probing: list[int]  # index of the input that each probing row is of, [P]
    within: list[int]  # the row among the new tokens of its lane, [P]
    rows: list[int]  # its packed index, [P]


def place(
    lane: LaneInput, layout: Layout, reached: Reached | None = None
) -> tuple[np.ndarray, Reached | None]:
    """Positions of the new tokens of a lane, [A, n], and what is reached then.

    Args:
        reached: before them; it is of no account where the lane holds nothing.

    Raises:
        ValueError: if one of its groups is none of the layout's.
    """
    try:
        numbers = layout.numbers(lane.counts, reached if any(lane.counts.values()) else None)
        index, places = layout.index, []
        following = [*lane.pieces[1:], None]
        for piece, after in zip(lane.pieces, following, strict=True):
            group, unit, tokens, grid = piece
            places.append(layout.positions(index[group], len(tokens), numbers, grid))
            if group == SOURCE and (after is None or after[:2] != (group, unit)):
                layout.end_unit(numbers)
        held = {n: lane.counts.get(n, 0) + lane.added.get(n, 0) for n in layout.groups}
        return in_a_row(places), layout.reached(numbers, held)
    except KeyError as error:
        raise ValueError(
            f"layout {layout.name!r} has no group {error}, but {', '.join(layout.groups)}"
        ) from None


def pack_lanes(
    inputs: Sequence[LaneInput],
    lengths: Sequence[int],
    layout: Layout,
    reached: Sequence[Reached | None],
) -> NewTokens:
    """Pack the new tokens of all lanes, at least one each, behind `lengths` entries of each lane.

    `reached` is of each lane, before.

    Raises:
        ValueError: if a group is none of the layout's.
    """
    features = list[tuple[int, Tensor]]()
    ids, groups, units, probing, within, rows = (list[int]() for _ in range(6))
    placed = [place(lane, layout, reached[lane.lane]) for lane in inputs]
    for index, lane in enumerate(inputs):
        if lane.probe is not None:
            asking = range(lane.probe, lane.probe + lane.rows)
            probing += [index] * lane.rows
            within += asking
            rows += [len(ids) + row for row in asking]
        for group, unit, tokens, _ in lane.pieces:
            n = len(tokens)
            groups += [layout.index[group]] * n
            units += [unit] * n
            if isinstance(tokens, Tensor):
                features.append((len(ids), tokens))
            ids += [0] * n if isinstance(tokens, Tensor) else tokens
    counts, unit_T = np.array([lane.size for lane in inputs]), np.array(units)
    before, first = np.array([lengths[lane.lane] for lane in inputs]), counts.cumsum() - counts
    position_AT = in_a_row([position_AT for position_AT, _ in placed])
    return NewTokens(
        lanes=np.array([lane.lane for lane in inputs]),
        counts=counts,
        lengths=before,
        first=first,
        places=np.arange(len(ids)) + np.repeat(before - first, counts),
        ids=np.array(ids, dtype=np.int64),
        features=features,
        kinds_4T=np.array((groups, position_AT[0], units, _in_space(inputs)), dtype=np.int64),
        position_AT=position_AT,
        horizon_T=_horizons(inputs, counts, unit_T),
        oldest_T=_oldest(inputs, counts, unit_T),
        recalled=[lane.reach.recalled if lane.reach else () for lane in inputs],
        reached=[after for _, after in placed],
        probing=probing,
        within=within,
        rows=rows,
    )


def _in_space(inputs: Sequence[LaneInput]) -> np.ndarray:
    """Whether each new token lies in space, [T]."""
    in_space = np.zeros(sum(lane.size for lane in inputs), bool)
    at = 0
    for lane in inputs:
        if any(piece.grid is not None for piece in lane.pieces):  # of most sources none does
            runs = [(len(piece.tokens), piece.grid) for piece in lane.pieces]
            rows = [np.zeros(n, bool) if g is None else g.rows_in_space() for n, g in runs]
            in_space[at : at + lane.size] = np.concatenate(rows)
        at += lane.size
    return in_space


def check_positions(position_AT: np.ndarray, limit: int, model_type: str) -> None:
    """Raise ValueError if a position is none of the model's, which has so many of them."""
    if (last := int(position_AT.max())) < limit:
        return
    raise ValueError(
        f"the stream has reached position {last}, and model type {model_type!r} has {limit} of "
        "them: use shorter sources, or a window"
    )


def _horizons(
    inputs: Sequence[LaneInput], counts: np.ndarray, unit_T: np.ndarray
) -> np.ndarray | None:
    if all(lane.horizon is None for lane in inputs):
        return None
    limits = [UNLIMITED if lane.horizon is None else lane.horizon for lane in inputs]
    return np.where(unit_T == 0, np.repeat(limits, counts), UNLIMITED)


def _oldest(
    inputs: Sequence[LaneInput], counts: np.ndarray, unit_T: np.ndarray
) -> np.ndarray | None:
    if all(lane.reach is None for lane in inputs):
        return None
    reaches = [lane.reach or Reach(UNLIMITED, 0) for lane in inputs]
    far_T = np.repeat([reach.units for reach in reaches], counts)
    read_T = np.repeat([reach.read for reach in reaches], counts)
    return np.where(unit_T == 0, read_T + 1, unit_T) - far_T
