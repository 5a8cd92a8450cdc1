"""One masked attention for the lanes of a step, for models that do their attention by themselves.

A mask keeps lanes apart, but it multiplies by 0 what it hides, and 0 x NaN is NaN. Entries that
are not finite are therefore taken out before a neighbour can meet them, and their own lane is
noted: its logits become NaN, as they would be alone.
Legend: T = new tokens of all lanes, B = lanes, K = entries of all lanes, H = key/value heads,
D = head dimension, P = lanes that probe, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from proactivellm.core.layout import Layout
from proactivellm.core.masks import layer_masks, visibility
from proactivellm.forward.lanes import NewTokens


@dataclass(frozen=True, kw_only=True)
class Joint:
    """What the one attention call sees."""

    slots: Tensor  # entries of all lanes, one after the other, [K]
    mask: Tensor | dict[str, Tensor]  # bool [1, 1, T, K], or one per layer type
    lane_K: Tensor  # index among the step's inputs of the lane that an entry belongs to
    num_bad_B: Tensor  # entries that were not finite, counted over the layers of this step

    def screen(self, keys_KHD: Tensor, values_KHD: Tensor) -> tuple[Tensor, Tensor]:
        """Put 0 for entries that are not finite, and note whose; a lane alone keeps its own."""
        if len(self.num_bad_B) == 1:
            return keys_KHD, values_KHD
        good_K = keys_KHD.isfinite().flatten(1).all(-1) & values_KHD.isfinite().flatten(1).all(-1)
        self.num_bad_B.index_add_(0, self.lane_K, (~good_K).to(self.num_bad_B.dtype))
        bad_K11 = ~good_K[:, None, None]
        return keys_KHD.masked_fill(bad_K11, 0.0), values_KHD.masked_fill(bad_K11, 0.0)

    def reveal(self, logits_PV: Tensor, probing: Sequence[int]) -> Tensor:
        """Logits with NaN for the probing inputs that have entries which are not finite."""
        if len(self.num_bad_B) == 1:
            return logits_PV
        rows_P = torch.tensor(probing, device=logits_PV.device)
        return logits_PV.masked_fill((self.num_bad_B[rows_P] > 0)[:, None], float("nan"))


def make_joint(
    kinds_4N: Tensor,
    slots_K: Tensor,
    new: NewTokens,
    layout: Layout,
    windows: dict[str, int | None],
) -> Joint:
    """One mask over the entries of all lanes; a lane is a view of its own.

    Args:
        kinds_4N: group, position, unit and more of every entry of the store.
        windows: sliding window per layer type; None = full attention.
    """
    device = slots_K.device
    ends = new.lengths + new.counts
    index = np.arange(len(ends))
    query, key = (
        {
            "view": torch.from_numpy(np.repeat(index, repeats)[None]).to(device),
            "arrival": torch.from_numpy(stamps[None]).to(device),
        }
        for repeats, stamps in (
            (new.counts, new.places),
            (ends, np.concatenate([np.arange(end) for end in ends])),
        )
    )
    kinds = torch.from_numpy(new.kinds_4T).to(device)
    query["group"], key["group"] = kinds[:1], kinds_4N[:1, slots_K]
    if new.horizon_T is not None:
        query["horizon"] = torch.from_numpy(new.horizon_T[None]).to(device)
        key["unit"] = kinds_4N[2:3, slots_K]
    if new.oldest_T is not None:
        query["oldest"] = torch.from_numpy(new.oldest_T[None]).to(device)
        unit_K, lane_K = kinds_4N[2, slots_K], key["view"][0]
        recalled_K = torch.zeros_like(unit_K, dtype=torch.bool)
        for lane, units in enumerate(new.recalled):
            of_lane = torch.tensor(units, dtype=unit_K.dtype, device=device)
            recalled_K |= (lane_K == lane) & torch.isin(unit_K, of_lane)
        query["recalled"] = (kinds[2] == 0)[None, :, None] & recalled_K
        key["unit"] = unit_K[None]
    mask = visibility(layout, query, key)
    masks = layer_masks(mask, kinds[1:2], kinds_4N[1:2, slots_K], windows)
    bad = torch.zeros(len(ends), dtype=torch.long, device=device)
    return Joint(slots=slots_K, mask=masks, lane_K=key["view"][0], num_bad_B=bad)
