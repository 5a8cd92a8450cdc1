"""Lanes and samples of a source and a target, which is what most tests are about."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from proactivellm.core.layout import SOURCE, TARGET
from proactivellm.core.packing import Sample, View, Written
from proactivellm.core.schedule import Schedule
from proactivellm.forward.lanes import LaneInput, Piece


def lane_input(
    lane: int,
    source: Sequence[tuple[int, Sequence[int] | Tensor]] = (),
    target: Sequence[int] = (),
    before: tuple[int, int] = (0, 0),
    probes: bool = False,
) -> LaneInput:
    """Units of source and then target tokens; the last one may probe.

    Args:
        lane: of the cache.
        source: unit and tokens of each piece.
        target: ids.
        before: source and target tokens that the lane holds.
        probes: whether the last token does.
    """
    pieces = [Piece(SOURCE, unit, tokens) for unit, tokens in source]
    pieces += [Piece(TARGET, 0, target)] if len(target) else []
    counts = dict(zip((SOURCE, TARGET), before, strict=True))
    return LaneInput(lane=lane, pieces=pieces, counts=counts, probe=-1 if probes else None)


def sample_of(
    units: Sequence[Sequence[int]], head: Sequence[int], target: Sequence[int], **more: Any
) -> Sample:
    """A sample whose unit 0 is the prompt."""
    return Sample(read={SOURCE: units}, written={TARGET: Written(head=head, tokens=target)}, **more)


def views_of(schedules: Sequence[Schedule]) -> list[View]:
    """A view for each schedule of the target."""
    return [{TARGET: g} for g in schedules]


def units_of(sample: Sample) -> Sequence[Sequence[int]]:
    """Source ids by unit, that of the prompt first."""
    return sample.read[SOURCE]


def head_of(sample: Sample) -> Sequence[int]:
    """Ids of the assistant prefix."""
    return sample.written[TARGET].head


def target_of(sample: Sample) -> Sequence[int]:
    """Target ids to predict."""
    return sample.written[TARGET].tokens
