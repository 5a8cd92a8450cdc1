"""One sequence holding several views of a sample: `[source | target, view 0 | target, view 1 ...]`.

A view is the target under one schedule. Where the layout keeps the source independent of the
target (grouped), all views share one source encoding; otherwise each view carries its own copy.
Legend: S = tokens of the packed sequence, N = target tokens to predict (end of stream included).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from proactivellm.model.layout import Group, Layout
from proactivellm.model.masks import SHARED
from proactivellm.schedule import Schedule

if TYPE_CHECKING:
    import numpy as np

IGNORE = -100  # label of rows that predict nothing
AUDIO_ID = -1  # in place of a token id: an embedding that is made from `features`


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Token ids of one instance.

    Attributes:
        source_units: token ids per unit; entry 0 is the prompt (may be empty), the last unit
            includes the text that closes the source.
        target_head: assistant prefix, at least one token.
        target: tokens to predict, end of stream included.
        features: mel frames [T, F] that become the embeddings of the ids AUDIO_ID, if there are.
        transcript: what `features` sound like; empty where that is not known.
    """

    source_units: Sequence[Sequence[int]]
    target_head: Sequence[int]
    target: Sequence[int]
    features: "np.ndarray | None" = None
    transcript: str = ""

    @property
    def num_units(self) -> int:
        """M, the prompt not counted."""
        return len(self.source_units) - 1

    def with_features(self, mel_TF: "np.ndarray", transcript: str) -> "Sample":
        """The same sample, with the frames that its ids AUDIO_ID stand for.

        Args:
            mel_TF: mel frames.
            transcript: what they sound like; empty if it is not known.
        """
        return replace(self, features=mel_TF, transcript=transcript)


@dataclass(kw_only=True)
class Packed:
    """Parallel lists over S tokens; `label` is IGNORE where nothing is predicted.

    `features` and `transcript` are those of the sample; `index` is its place in the training plan,
    -1 where there is none.
    """

    input_ids: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    arrival: list[int] = field(default_factory=list)
    view: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    features: "np.ndarray | None" = None
    transcript: str = ""
    index: int = -1

    def columns(self) -> dict[str, list[int]]:
        """The parallel lists by name."""
        return {name: values for name, values in vars(self).items() if isinstance(values, list)}


def arrival_stamp(group: Group, units: int, order: int) -> int:
    """When a token arrives: source tokens with their unit, target tokens after `units` units.

    Args:
        group: the token's group.
        units: index of the token's unit (source) or number of units read before it (target).
        order: index within the group, below 2**32.

    Returns:
        A stamp that sorts by arrival.
    """
    return ((2 * units + int(group)) << 32) + order


def pack(sample: Sample, schedules: Sequence[Schedule], layout: Layout) -> Packed:
    """Pack a sample with one target copy per schedule.

    The row that *predicts* target token t sees units 1..g[t]; rows inside the target head have the
    visibility of the first target token (the one-row shift of GPE, part of the definition).

    Args:
        sample: the instance.
        schedules: one schedule over target tokens per view, each of length N.
        layout: position rule and visibility.

    Returns:
        The packed sequence.

    Raises:
        ValueError: if a schedule's length is not N or the target head is empty.
    """
    if not sample.target_head:
        raise ValueError("the target group needs at least one head token (assistant prefix or BOS)")
    packed = Packed(features=sample.features, transcript=sample.transcript)
    if layout.shares_source:
        _append_source(packed, sample, layout, SHARED)
    for view, g in enumerate(schedules):
        if len(g) != len(sample.target):
            raise ValueError(f"schedule has {len(g)} entries for {len(sample.target)} tokens")
        if not layout.shares_source:
            _append_source(packed, sample, layout, view)
        _append_target(packed, sample, layout, view, g)
    if layout.shared_counter:
        _rank_positions(packed, layout)
    return packed


def _append_source(packed: Packed, sample: Sample, layout: Layout, view: int) -> None:
    order = 0
    for unit, tokens in enumerate(sample.source_units):
        for token in tokens:
            stamp = arrival_stamp(Group.SOURCE, unit, order)
            position = layout.position(Group.SOURCE, order, 0)
            _append(packed, token, Group.SOURCE, stamp, view, position, IGNORE)
            order += 1


def _append_target(packed: Packed, sample: Sample, layout: Layout, view: int, g: Schedule) -> None:
    tokens = [*sample.target_head, *sample.target]
    first = len(sample.target_head) - 1  # the row that predicts target token 0
    for row, token in enumerate(tokens[:-1]):
        step = max(row - first, 0)
        stamp = arrival_stamp(Group.TARGET, g[step], row)
        position = layout.position(Group.TARGET, 0, row)
        label = tokens[row + 1] if row >= first else IGNORE
        _append(packed, token, Group.TARGET, stamp, view, position, label)


def _append(
    packed: Packed, token: int, group: Group, stamp: int, view: int, position: int, label: int
) -> None:
    packed.input_ids.append(token)
    packed.group.append(int(group))
    packed.arrival.append(stamp)
    packed.view.append(view)
    packed.position.append(position)
    packed.label.append(label)


def _rank_positions(packed: Packed, layout: Layout) -> None:
    """One counter in arrival order, per view."""
    for view in set(packed.view):
        members = [i for i, v in enumerate(packed.view) if v == view]
        members.sort(key=lambda i: packed.arrival[i])
        for rank, i in enumerate(members):
            packed.position[i] = layout.position(Group(packed.group[i]), rank, 0)
