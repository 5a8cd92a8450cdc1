"""The plan of a step: which lanes share an attention call, and that each token sees its own."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tests.two_groups import lane_input
from torch import Tensor

from proactivellm.core.layout import Layout, grouped, interleaved
from proactivellm.forward.cache import PAGE, ArrivalCache
from proactivellm.forward.lanes import LaneInput, NewTokens, pack_lanes
from proactivellm.forward.plan import FEW_ENTRIES, FEW_NEW, Scratch, StepPlan, make_plan

CPU = torch.device("cpu")
WINDOW = 5
FULL: dict[str, int | None] = {"all": None}
MIXED: dict[str, int | None] = {"sliding_attention": WINDOW, "full_attention": None}


@torch.inference_mode()
def plan_of(
    cache: ArrivalCache,
    inputs: Sequence[LaneInput],
    layout: Layout | None = None,
    windows: dict[str, int | None] | None = None,
    joint: bool = False,
) -> tuple[StepPlan, NewTokens]:
    """Plan a step, and settle all of it."""
    layout, windows = layout or grouped(), windows or FULL
    for lane in inputs:
        cache.reserve(lane.lane, cache.lengths[lane.lane] + lane.size)
    new = pack_lanes(inputs, cache.lengths, layout, cache.reached)
    plan = make_plan(cache.store(), new, layout, windows, tuple(windows), joint)
    return plan, new


def settle(cache: ArrivalCache, inputs: Sequence[LaneInput]) -> None:
    for lane in inputs:
        cache.lengths[lane.lane] += lane.size


def source(lane: int, count: int, before: int = 0) -> LaneInput:
    return lane_input(lane, [(1, [7] * count)] if count else [], before=(before, 0))


def target(lane: int, count: int = 1, num_source: int = 0, num_target: int = 0) -> LaneInput:
    return lane_input(lane, (), [8] * count, (num_source, num_target), probes=True)


def filled(lengths: Sequence[int], capacity: int | None = None) -> ArrivalCache:
    """A cache whose lanes hold so many source tokens."""
    cache = ArrivalCache(1, len(lengths), CPU, capacity)
    inputs = [source(lane, length) for lane, length in enumerate(lengths) if length]
    if inputs:
        plan_of(cache, inputs)
        settle(cache, inputs)
    return cache


class TestParts:
    def test_one_lane_that_decodes_needs_no_mask_and_no_gathering(self) -> None:
        cache = filled([20])
        plan, _ = plan_of(cache, [target(0, num_source=20)])
        (part,) = plan.parts
        assert part.masks == {"all": None} and part.rows is None and part.extent == (0, 21)
        assert plan.slots_T.tolist() == [20] and part.ends.tolist() == [21]
        assert plan.joint is None and plan.layer_types == ("all",)

    def test_a_mask_comes_with_several_tokens_a_window_or_a_source_that_sees_no_target(
        self,
    ) -> None:
        for inputs, windows in (
            ([target(0, count=2, num_source=20)], FULL),
            ([target(0, num_source=20)], MIXED),
            ([source(0, 1, before=20)], FULL),
        ):
            plan, _ = plan_of(filled([20]), inputs, windows=windows)
            (part,) = plan.parts
            assert part.extent == (0, 20 + inputs[0].size)
            for mask in part.masks.values():
                assert mask is not None
                assert mask.shape == (1, 1, inputs[0].size, 20 + inputs[0].size)
        plan, _ = plan_of(filled([20]), [source(0, 1, before=20)], layout=interleaved())
        assert plan.parts[0].masks == {"all": None}, "there, source sees all that arrived"

    def test_a_scattered_lane_is_gathered(self) -> None:
        cache = filled([PAGE, PAGE])
        for lane in (0, 1):
            plan, _ = plan_of(cache, [target(lane, num_source=PAGE)])
        (part,) = plan.parts
        assert cache.pages == [[0, 2], [1, 3]]
        assert part.extent is None
        assert part.slots.tolist() == [[*range(PAGE, 2 * PAGE), 3 * PAGE]]

    def test_alike_lanes_share_a_part_and_long_ones_stand_aside(self) -> None:
        lengths = [3, 200, FEW_ENTRIES + 10, 9, FEW_ENTRIES + 80, 2, 4 * FEW_ENTRIES]
        cache = filled(lengths)
        inputs = [
            target(0, num_source=3),
            target(1, count=FEW_NEW, num_source=200),
            target(2, num_source=lengths[2]),
            source(3, 60, before=9),
            target(4, num_source=lengths[4]),
            source(5, 50, before=2),
            target(6, num_source=lengths[6]),
        ]
        plan, new = plan_of(cache, inputs)
        assert [part.inputs.tolist() for part in plan.parts] == [[0, 1], [2, 4], [3, 5], [6]]
        for part in plan.parts:
            assert part.rows is not None and part.slots.shape[1] == int(part.ends.max())
            for b, i in enumerate(part.inputs):
                first, count = int(new.first[i]), int(new.counts[i])
                rows = [first + min(q, count - 1) for q in range(part.rows.shape[1])]
                assert part.rows[b].tolist() == rows, "a lane's last token is repeated"
        fed = sum(part.rows.numel() for part in plan.parts if part.rows is not None)
        assert fed < 1.2 * new.counts.sum()

    def test_lanes_that_all_decode_lie_as_they_are(self) -> None:
        cache = filled([5, 30, 12])
        plan, _ = plan_of(
            cache, [target(lane, num_source=cache.lengths[lane]) for lane in (2, 0, 1)]
        )
        (part,) = plan.parts
        assert part.rows is None and part.extent is None
        assert part.ends.tolist() == [13, 6, 31]
        mask = part.masks["all"]
        assert mask is not None and mask.shape == (3, 1, 1, 31)
        assert mask.sum(-1).flatten().tolist() == [13, 6, 31]

    def test_what_new_tokens_are_is_noted_in_the_store(self) -> None:
        cache = filled([3, 0])
        inputs = [
            lane_input(1, [(0, [4]), (1, [5, 6])], [8]),
            lane_input(0, [(2, [7])], [9, 9], before=(3, 0)),
        ]
        plan, _ = plan_of(cache, inputs, layout=grouped(phi=50))
        places = [(1, 0), (1, 1), (1, 2), (1, 3), (0, 3), (0, 4), (0, 5)]
        slots = [cache.pages[lane][n // PAGE] * PAGE + n % PAGE for lane, n in places]
        assert plan.slots_T.tolist() == slots and len(set(slots)) == 7
        group, position, unit, _ = cache.kinds[:, plan.slots_T].tolist()
        assert group == [0, 0, 0, 1, 0, 1, 1]
        assert position == [0, 1, 2, 50, 3, 50, 51]
        assert unit == [0, 1, 1, 0, 2, 0, 0]


def random_steps(rng: random.Random, num_lanes: int) -> list[list[LaneInput]]:
    """A few steps of lanes that read and write at random; the last one is to be planned."""
    counts = {lane: [0, 0, 0] for lane in range(num_lanes)}  # source, target, units
    steps = []
    for _ in range(rng.randrange(2, 7)):
        inputs = []
        for lane in rng.sample(range(num_lanes), rng.randrange(1, num_lanes + 1)):
            num_source, num_target, units = counts[lane]
            sizes = [rng.choice((1, 2, 9)) for _ in range(rng.randrange(3))]
            read = [(units + i + 1, [7] * size) for i, size in enumerate(sizes)]
            write = [8] * rng.choice((0, 1, 1, 3) if sizes else (1, 1, 3))
            inputs.append(lane_input(lane, read, write, (num_source, num_target)))
            counts[lane] = [num_source + sum(sizes), num_target + len(write), units + len(sizes)]
        steps.append([lane for lane in inputs if lane.size])
    return [step for step in steps if step]


Pairs = dict[str, set[tuple[int, int]]]


def pairs_of_parts(plan: StepPlan) -> Pairs:
    """Who sees which entry of the store, by layer type: (packed token, slot)."""
    found: Pairs = {kind: set() for kind in plan.parts[0].masks}
    for part in plan.parts:
        lanes, size = part.slots.shape
        if part.extent is not None:
            assert part.slots.tolist() == [list(range(*part.extent))]
        rows = (
            part.rows if part.rows is not None else torch.arange(len(plan.slots_T)).view(lanes, -1)
        )
        for kind, mask in part.masks.items():
            if mask is None:
                mask = torch.ones(lanes, 1, rows.shape[1], size, dtype=torch.bool)
            for b, _, q, k in mask.expand(lanes, 1, rows.shape[1], size).nonzero().tolist():
                found[kind].add((int(rows[b, q]), int(part.slots[b, k])))
    return found


def pairs_of_joint(plan: StepPlan, windows: dict[str, int | None]) -> Pairs:
    assert plan.joint is not None and plan.parts == ()
    masks = plan.joint.mask
    by_kind: dict[str, Tensor] = {"all": masks} if isinstance(masks, Tensor) else masks
    assert set(by_kind) == set(windows)
    slots = plan.joint.slots.tolist()
    return {
        kind: {(t, slots[k]) for _, _, t, k in mask.nonzero().tolist()}
        for kind, mask in by_kind.items()
    }


def pairs_by_hand(
    cache: ArrivalCache,
    new: NewTokens,
    slots: list[int],
    layout: Layout,
    windows: dict[str, int | None],
) -> Pairs:
    """The rule, token by token: own lane, arrived by then, group visible, near enough."""
    kinds = cache.kinds.tolist()
    found: Pairs = {kind: set() for kind in windows}
    for i, lane in enumerate(new.lanes.tolist()):
        entries = [page * PAGE + within for page in cache.pages[lane] for within in range(PAGE)][
            : int(new.lengths[i] + new.counts[i])
        ]
        for q in range(int(new.counts[i])):
            token = int(new.first[i]) + q
            group, position = kinds[0][slots[token]], kinds[1][slots[token]]
            for entry in entries[: int(new.lengths[i]) + q + 1]:
                if layout.attends[group][kinds[0][entry]]:
                    for kind, window in windows.items():
                        if window is None or abs(position - kinds[1][entry]) < window:
                            found[kind].add((token, entry))
    return found


@pytest.mark.parametrize("windows", [FULL, {"all": WINDOW}, MIXED], ids=str)
@pytest.mark.parametrize("layout", [grouped(phi=2), interleaved()], ids=lambda each: each.name)
@pytest.mark.parametrize("seed", range(12))
def test_every_token_sees_what_the_rule_says_in_parts_and_jointly(
    seed: int, layout: Layout, windows: dict[str, int | None]
) -> None:
    rng = random.Random(seed)
    num_lanes = rng.randrange(1, 6)
    cache = ArrivalCache(1, num_lanes, CPU)
    *earlier, last = random_steps(rng, num_lanes)
    for inputs in earlier:
        plan_of(cache, inputs, layout, windows)
        settle(cache, inputs)
    plan, new = plan_of(cache, last, layout, windows)
    slots = plan.slots_T.tolist()
    assert len(set(slots)) == len(slots) == new.counts.sum()
    expected = pairs_by_hand(cache, new, slots, layout, windows)
    assert pairs_of_parts(plan) == expected
    joint, _ = plan_of(cache, last, layout, windows, joint=True)
    assert joint.slots_T.tolist() == slots
    assert pairs_of_joint(joint, windows) == expected
    assert sorted(i for part in plan.parts for i in part.inputs.tolist()) == list(range(len(last)))


def test_scratch_buffers_are_used_again_and_grow() -> None:
    scratch = Scratch()
    rows = torch.arange(12.0).view(6, 2)
    first = scratch.select("keys", rows, torch.tensor([5, 0]))
    assert first.tolist() == [[10.0, 11.0], [0.0, 1.0]]
    second = scratch.select("keys", rows, torch.tensor([1, 2, 3]))
    assert second.tolist() == rows[1:4].tolist()
    assert second.data_ptr() == first.data_ptr()
    other = scratch.select("values", rows, torch.tensor([4]))
    assert other.data_ptr() != first.data_ptr()
    longer = scratch.select("keys", rows, torch.arange(6))
    assert torch.equal(longer, rows)
    halves = scratch.select("keys", rows.half(), torch.tensor([2]))
    assert halves.dtype == torch.float16 and halves.tolist() == [[4.0, 5.0]]


def test_packed_indices() -> None:
    new = pack_lanes([source(1, 3), target(0, 2, num_source=4)], [4, 0], grouped(), [None] * 2)
    assert new.first.tolist() == [0, 3] and new.rows == [4] and new.probing == [1]
    assert new.places.tolist() == [0, 1, 2, 4, 5]
    assert new.ids.tolist() == [7, 7, 7, 8, 8] and new.features == []
    assert isinstance(new.kinds_4T, np.ndarray) and new.kinds_4T.shape == (4, 5)
