"""What one forward computes: all lanes' new tokens packed in one row, and who attends to what.

Linear layers see the packed tokens, without padding. Attention runs once per part: lanes with
alike numbers of new tokens and of entries, so that padding inside a part stays small.
Legend: T = new tokens of all lanes, B = lanes of a part, Q = most new tokens of a lane of the
part, K = most entries, N = entries of the store.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from proactivellm.core.layout import Layout
from proactivellm.core.masks import layer_masks, visibility
from proactivellm.forward.joint import Joint, make_joint
from proactivellm.forward.lanes import UNLIMITED, NewTokens

FEW_NEW = 4  # lanes with at most so many new tokens may share an attention call
FEW_ENTRIES = 256  # lanes with at most so many entries may share an attention call


@dataclass(frozen=True, kw_only=True)
class Part:
    """Lanes that share one attention call."""

    inputs: np.ndarray  # index of each lane among the step's inputs, [B]
    # Packed index of each new token [B, Q], a lane's last one repeated; None: the packed tokens are
    # [B, Q] as they lie.
    rows: Tensor | None
    # Entry of the store at each place [B, K]. Places after a lane's last are masked, and repeat its
    # first: other streams' values, NaN among them, are never even looked at.
    slots: Tensor
    ends: Tensor  # entries of each lane after this step, [B]
    extent: tuple[int, int] | None  # first and last + 1 slot of an only lane, side by side
    masks: dict[str, Tensor | None]  # bool [B, 1, Q, K] by layer type; None: all is visible


class Scratch:
    """Buffers that every layer of every step uses again: fresh ones cost more than filling them."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def select(self, name: str, rows_NW: Tensor, index_I: Tensor) -> Tensor:
        """Rows [I, W] of a matrix, valid until the next call with this name."""
        num_rows, width = index_I.shape[0], rows_NW.shape[1]  # `len` of a tensor takes five calls
        size = num_rows * width
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size or buffer.dtype != rows_NW.dtype:
            buffer = self._buffers[name] = rows_NW.new_empty(2 * size)
        out = buffer[:size].view(num_rows, width)
        return torch.index_select(rows_NW, 0, index_I, out=out)


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """What a forward writes and attends to."""

    slots_T: Tensor  # entry that each new token becomes
    parts: tuple[Part, ...]  # attention calls; empty for a joint plan
    layer_types: tuple[str, ...]  # of each layer, as in the masks
    scratch: Scratch | None  # where a part's keys and values are gathered; None: in new buffers
    # Entries that attention is given, part after part, or those of the joint one [M]; None: it is
    # given the whole store.
    given_M: Tensor | None
    joint: Joint | None = None  # for models that do their attention by themselves


@dataclass(frozen=True, kw_only=True)
class Store:
    """What a plan needs to know of the cache."""

    page: int  # entries per page
    page_table: np.ndarray  # pages of each lane, int64 [lanes, pages]
    contiguous: Sequence[bool]  # whether a lane's pages lie side by side
    kinds: (
        Tensor  # group, position, unit, and whether it lies in space, of every entry: int64 [4, N]
    )
    scratch: Scratch
    whole: bool  # it can be given to attention as it is


def make_plan(
    store: Store,
    new: NewTokens,
    layout: Layout,
    windows: dict[str, int | None],
    layer_types: tuple[str, ...],
    joint: bool = False,
) -> StepPlan:
    """Plan a step; the kinds of its new tokens are written into the store.

    Args:
        windows: sliding window per layer type; None = full attention.
        joint: attend in one call with one mask.
    """
    device = store.kinds.device
    slots_T = torch.from_numpy(new_slots(store, new)).to(device)
    store.kinds.index_copy_(1, slots_T, torch.from_numpy(new.kinds_4T).to(device))
    parts = tuple(
        _part(store, new, group, layout, windows) for group in (() if joint else _groups(new))
    )
    together = _joint(store, new, layout, windows) if joint else None
    return StepPlan(
        slots_T=slots_T,
        parts=parts,
        layer_types=layer_types,
        scratch=store.scratch,
        given_M=given_slots(store, parts) if together is None else together.slots,
        joint=together,
    )


def given_slots(store: Store, parts: Sequence[Part]) -> Tensor | None:
    """Slots [M] of the entries that attention is given; None: it is given the whole store."""
    return None if store.whole else torch.cat([part.slots.flatten() for part in parts])


def new_slots(store: Store, new: NewTokens) -> np.ndarray:
    """Entry of the store that each new token becomes, [T]."""
    lane_T = np.repeat(new.lanes, new.counts)
    place_T = new.places
    return store.page_table[lane_T, place_T // store.page] * store.page + place_T % store.page


def _groups(new: NewTokens) -> Iterable[np.ndarray]:
    """Indices of inputs that share a part: alike in new tokens and in entries."""
    if len(new.lanes) == 1:
        return [np.zeros(1, dtype=np.int64)]
    groups: dict[tuple[int, int], list[int]] = {}
    ends = (new.lengths + new.counts).tolist()
    for index, (count, end) in enumerate(zip(new.counts.tolist(), ends, strict=True)):
        few = 0 if count <= FEW_NEW else count.bit_length()
        groups.setdefault((few, 0 if end <= FEW_ENTRIES else end.bit_length()), []).append(index)
    return [np.array(group) for group in groups.values()]


def _part(
    store: Store,
    new: NewTokens,
    inputs: np.ndarray,
    layout: Layout,
    windows: dict[str, int | None],
) -> Part:
    device = store.kinds.device
    counts, lengths, lanes = new.counts[inputs], new.lengths[inputs], new.lanes[inputs]
    ends = lengths + counts
    num_new, num_entries = int(counts.max()), int(ends.max())
    within_BQ = np.minimum(np.arange(num_new), counts[:, None] - 1)
    rows_BQ = new.first[inputs][:, None] + within_BQ
    extent = None
    if len(lanes) == 1 and store.contiguous[int(lanes[0])]:
        start = int(store.page_table[lanes[0], 0]) * store.page
        extent = (start, start + num_entries)
        slots_BK = torch.arange(start, start + num_entries, device=device)[None]
    else:
        slots_BK = _entry_slots(store, lanes, num_entries)
    ends_B = torch.from_numpy(ends).to(device)
    if int(ends.min()) < num_entries:
        slots_BK = own_slots(slots_BK, ends_B)
    whole = len(inputs) == len(new.lanes) and bool((counts == num_new).all())
    return Part(
        inputs=inputs,
        rows=None if whole else torch.from_numpy(rows_BQ).to(device),
        slots=slots_BK,
        ends=ends_B,
        extent=extent,
        masks=_masks(
            *(store, slots_BK, new.kinds_4T[:, rows_BQ], lengths[:, None] + within_BQ),
            *(_limits(store, new, inputs, rows_BQ, slots_BK), layout, windows),
        ),
    )


def _limits(
    store: Store, new: NewTokens, inputs: np.ndarray, rows_BQ: np.ndarray, slots_BK: Tensor
) -> dict[str, Tensor]:
    """What limits the units that each token of a part may see, as `visibility` takes it."""
    limits: dict[str, Tensor] = {}
    device = slots_BK.device
    if new.horizon_T is not None and not (new.horizon_T[rows_BQ] == UNLIMITED).all():
        limits["horizon"] = torch.from_numpy(new.horizon_T[rows_BQ]).to(device)
    if new.oldest_T is not None:
        limits["oldest"] = torch.from_numpy(new.oldest_T[rows_BQ]).to(device)
        unitless_BQ = torch.from_numpy(new.kinds_4T[2][rows_BQ] == 0).to(device)
        unit_BK = store.kinds[2][slots_BK]
        recalled = [
            recalled_units(new.recalled[i], unit_K)
            for i, unit_K in zip(inputs, unit_BK, strict=True)
        ]
        limits["recalled"] = unitless_BQ[:, :, None] & torch.stack(recalled)[:, None, :]
    return limits


def recalled_units(recalled: Sequence[int], unit_K: Tensor) -> Tensor:
    """Whether entries [K] are of one of these units."""
    return torch.isin(unit_K, torch.tensor(recalled, dtype=unit_K.dtype, device=unit_K.device))


def _entry_slots(store: Store, lanes: np.ndarray, num_entries: int) -> Tensor:
    """Slots [B, K] of the first entries of lanes."""
    device = store.kinds.device
    num_pages = -(-num_entries // store.page)
    pages_BP = torch.from_numpy(store.page_table[lanes, :num_pages]).to(device)
    within = torch.arange(store.page, device=device)
    slots = (pages_BP[:, :, None] * store.page + within).view(len(lanes), -1)
    return slots[:, :num_entries]


def own_slots(slots_BK: Tensor, ends_B: Tensor) -> Tensor:
    """Slots [B, K] with each lane's first one wherever the lane has ended.

    A masked value counts 0 times, and 0 x NaN is NaN: what pads a lane must be its own.
    """
    place_K = torch.arange(slots_BK.shape[1], device=slots_BK.device)
    return torch.where(place_K < ends_B[:, None], slots_BK, slots_BK[:, :1])


def _masks(
    store: Store,
    slots_BK: Tensor,
    query_4BQ: np.ndarray,
    stamp_BQ: np.ndarray,
    limits: dict[str, Tensor],
    layout: Layout,
    windows: dict[str, int | None],
) -> dict[str, Tensor | None]:
    """`entry_masks`, except where all that arrived is visible."""
    device = slots_BK.device
    stamps = torch.from_numpy(stamp_BQ).to(device)
    all_seen = not limits and all(window is None for window in windows.values())
    if all_seen and stamp_BQ.shape[1] == 1 and layout.sees_all[query_4BQ[0]].all():
        if len(stamp_BQ) == 1:
            return dict.fromkeys(windows)
        entry_K = torch.arange(slots_BK.shape[1], device=device)
        return dict.fromkeys(windows, (entry_K <= stamps[:, :, None])[:, None])
    query = torch.from_numpy(query_4BQ).to(device)
    return entry_masks(store.kinds, slots_BK, query, stamps, layout, windows, limits)


def entry_masks(
    kinds_4N: Tensor,
    slots_BK: Tensor,
    query_4BQ: Tensor,
    stamp_BQ: Tensor,
    layout: Layout,
    windows: dict[str, int | None],
    limits: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor | None]:
    """The rule of training, with the place in the lane as the stamp of arrival.

    Args:
        kinds_4N: group, position, unit and more of every entry of the store.
        query_4BQ: those of the new tokens.
        windows: sliding window per layer type; None = full attention.
        limits: of the units that they may see, as `visibility` takes them; None: there are none.

    Returns:
        bool [B, 1, Q, K] per layer type.
    """
    entry_K = torch.arange(slots_BK.shape[1], device=slots_BK.device)
    query = {"group": query_4BQ[0], "arrival": stamp_BQ}
    key = {"group": kinds_4N[0][slots_BK], "arrival": entry_K.expand(len(slots_BK), -1)}
    if limits:
        query, key["unit"] = {**query, **limits}, kinds_4N[2][slots_BK]
    mask = visibility(layout, query, key)
    if all(window is None for window in windows.values()):
        return dict.fromkeys(windows, mask)
    made = layer_masks(mask, query_4BQ[1], kinds_4N[1][slots_BK], windows)
    return {**made} if isinstance(made, dict) else {"all": made}


def _joint(store: Store, new: NewTokens, layout: Layout, windows: dict[str, int | None]) -> Joint:
    ends = (new.lengths + new.counts).tolist()
    lanes = [new.lanes[i : i + 1] for i in range(len(ends))]
    slots = [_entry_slots(store, lane, end)[0] for lane, end in zip(lanes, ends, strict=True)]
    return make_joint(store.kinds, torch.cat(slots), new, layout, windows)
