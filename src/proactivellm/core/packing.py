"""One sequence holding several views of a sample: `[source | target, view 0 | target, view 1 ...]`.

A view is what is written under one schedule for each written group. Groups that depend on nothing
written (the source, if grouped) are encoded once for all views; otherwise each view has its own.
Legend: S = tokens of the packed sequence, N = tokens that one group predicts, M = source units.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from proactivellm.core.layout import SOURCE, Layout
from proactivellm.core.masks import SHARED
from proactivellm.core.positions import Grid
from proactivellm.core.schedule import Schedule, validate

IGNORE = -100  # label of rows that predict nothing
UNTAUGHT = -101  # and of rows that predict what they are not to learn in their view
MEDIA_ID = -1  # in place of a token id: an embedding that is made from `features`

View = Mapping[str, Schedule]  # of each written group
Row = tuple[int, int, int]  # token, units read before it, label


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a model writes into one group."""

    head: Sequence[int]  # given ids before it, at least one (assistant prefix or BOS)
    tokens: Sequence[int]  # to predict, at least one (end of stream included)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a model is trained on: token ids by the name of their group."""

    # Ids per unit of each group that is only read; unit u of any of them arrives at time u, entry 0
    # is the prompt (may be empty), and the last unit of the source includes the text that closes it
    read: Mapping[str, Sequence[Sequence[int]]]
    written: Mapping[str, Written]
    # [T, ...] that become the embeddings of the ids MEDIA_ID, if there are any
    features: np.ndarray | None = None
    transcript: str = ""  # the text of what `features` hold; empty where that is not known
    # Units that each token of the target waits for, where that is known.
    due: Schedule | None = None
    # Of source units whose first tokens lie in space, by the number of the unit.
    grids: Mapping[int, Grid] = field(default_factory=dict)

    @property
    def num_units(self) -> int:
        """M, the prompt not counted."""
        return max(map(len, self.read.values())) - 1

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each group in a view: the last token written is only predicted."""
        read = {name: sum(map(len, units)) for name, units in self.read.items()}
        return read | {n: len(w.head) + len(w.tokens) - 1 for n, w in self.written.items()}


@dataclass(kw_only=True)
class Packed:
    """Parallel lists over S tokens; `index` is the sample's place in the training plan, or -1."""

    input_ids: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    arrival: list[int] = field(default_factory=list)
    view: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)  # the axis of time, where there are three
    row: list[int] = field(default_factory=list)  # those of height and width; empty: all as time
    column: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    action: list[int] = field(default_factory=list)  # of `train.actions`; empty: none is learnt
    features: np.ndarray | None = None
    transcript: str = ""
    index: int = -1

    def columns(self) -> dict[str, list[int]]:
        """The parallel lists by name."""
        columns = {name: value for name, value in vars(self).items() if isinstance(value, list)}
        return {name: values for name, values in columns.items() if values}


def pack(sample: Sample, views: Sequence[View], layout: Layout) -> Packed:
    """Pack a sample with one copy of what is written per view.

    The row that *predicts* token t of a group sees units 1..g[t]; rows inside the head have the
    visibility of the first token (the one-row shift of GPE, part of the definition). ValueError if
    the layout lacks a group, a schedule is none of M units and N tokens, a head is empty, or a view
    under a layout that encodes anew reads between its tokens.
    """
    for view in views:
        _check(sample, view, layout)
    packed = Packed(features=sample.features, transcript=sample.transcript)
    shared = layout.independent(sample.read)
    for name in sample.read:
        if name in shared:
            _append(packed, layout, name, SHARED, _read_rows(sample.read[name]))
    for number, view in enumerate(views):
        for name in sample.read:
            if name not in shared:
                _append(packed, layout, name, number, _read_rows(sample.read[name]))
        for name, written in sample.written.items():
            _append(packed, layout, name, number, _written_rows(written, view[name]))
    _place(packed, layout, sample.grids)
    return packed


def _check(sample: Sample, view: View, layout: Layout) -> None:
    for name in (*sample.read, *sample.written):
        if name not in layout.index:
            raise ValueError(f"layout {layout.name!r} has no group {name!r}: {layout.groups}")
    if view.keys() != sample.written.keys():
        raise ValueError(f"a view has schedules of {[*view]}, and written are {[*sample.written]}")
    for name, written in sample.written.items():
        if not written.head:
            raise ValueError(
                f"the {name} group needs at least one head token (assistant prefix or BOS)"
            )
        if len(view[name]) != len(written.tokens):
            raise ValueError(f"schedule has {len(view[name])} entries for {len(written.tokens)}")
        validate(view[name], sample.num_units)
    if layout.reencoded and len({units for g in view.values() for units in g}) > 1:
        raise ValueError(
            f"layout {layout.name!r} encodes what is written anew at each READ, which is no one "
            "sequence: give a view for each number of units read, and train on the full view alone"
        )


def _read_rows(units: Sequence[Sequence[int]]) -> Iterator[Row]:
    for unit, tokens in enumerate(units):
        for token in tokens:
            yield token, unit, IGNORE


def _written_rows(written: Written, g: Schedule) -> Iterator[Row]:
    tokens = [*written.head, *written.tokens]
    first = len(written.head) - 1  # the row that predicts token 0
    for row, token in enumerate(tokens[:-1]):
        yield token, g[max(row - first, 0)], tokens[row + 1] if row >= first else IGNORE


def _append(packed: Packed, layout: Layout, name: str, view: int, rows: Iterable[Row]) -> None:
    group = layout.index[name]
    for order, (token, units, label) in enumerate(rows):
        packed.input_ids.append(token)
        packed.group.append(group)
        packed.arrival.append(arrival_stamp(layout, group, units, order))
        packed.view.append(view)
        packed.label.append(label)


def arrival_stamp(layout: Layout, group: int, units: int, order: int) -> int:
    """A stamp by which tokens sort in order of arrival.

    What is read arrives with its unit, what is written after `units` units; in one of these, groups
    follow each other in the layout's order. `order` is the index within the group, below 2**32.
    """
    return (_stamp(layout, layout.groups[group], units) << 32) + order


def _stamp(layout: Layout, name: str, unit: int) -> int:
    return len(layout.groups) * unit + layout.index[name]


def _place(packed: Packed, layout: Layout, grids: Mapping[int, Grid]) -> None:
    """Positions in the order of arrival, view by view; shared groups have counters of their own."""
    places: list[list[int]] = [[]] * len(packed.view)
    for view in set(packed.view):
        members = [i for i, v in enumerate(packed.view) if v == view]
        members.sort(key=packed.arrival.__getitem__)
        numbers = layout.numbers({})
        # Moments of which no token was kept count too.
        empty = [unit for unit, grid in grids.items() if not grid.size]
        runs: dict[int, list[int]] = {_stamp(layout, SOURCE, unit): [] for unit in empty}
        for stamp, run in groupby(members, key=lambda i: packed.arrival[i] >> 32):
            runs[stamp] = list(run)
        for stamp, rows in sorted(runs.items()):
            unit, group = divmod(stamp, len(layout.groups))
            is_source = layout.groups[group] == SOURCE
            grid = grids.get(unit) if is_source else None
            size = 0 if grid is None else grid.size
            for part, lies in ((rows[:size], grid), (rows[size:], None)):
                if part or lies is not None:
                    positions = layout.positions(group, len(part), numbers, lies)
                    for i, place in zip(part, positions.T.tolist(), strict=True):
                        places[i] = place
            if is_source:
                layout.end_unit(numbers)
    packed.position = [place[0] for place in places]
    if grids:
        packed.row = [place[-2:][0] for place in places]  # of one axis: the same
        packed.column = [place[-1] for place in places]
