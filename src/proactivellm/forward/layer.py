"""Keys and values of one layer in the arrival-order store, as transformers writes them.

Legend: N = entries of the store, H = key/value heads, D = head dimension, T = new tokens of a step
(all lanes, packed), M = entries that attention is given.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from proactivellm.forward.plan import StepPlan

if TYPE_CHECKING:
    from proactivellm.forward.cache import ArrivalCache


class ArrivalLayer(CacheLayerMixin):
    """Keys and values of one layer, each [N, H, D]; the cache says how large the store is.

    A subclass may keep them in another form of [N, H, any width].
    """

    is_sliding = False
    kv: str | None = None  # the form in which entries are kept; None: as the model makes them
    keys: Tensor
    values: Tensor
    plan: StepPlan  # of the running step

    def __init__(self, cache: ArrivalCache) -> None:
        super().__init__()
        self.cache = weakref.proxy(cache)  # no cycle: a dropped cache frees its buffers at once

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate buffers of the shape that the first keys and values show, as they are kept."""
        entries = self.cache.num_entries
        self.keys = key_states.new_zeros(entries, key_states.shape[1], key_states.shape[3])
        self.values = value_states.new_zeros(entries, value_states.shape[1], value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new entries [1, H, T, D] at the slots of this step.

        Attention is given the entries that the plan asks for [1, H, M, D], in its order, or the
        whole store [1, H, N, D].
        """
        plan, dtype = self.plan, key_states.dtype
        key_states, value_states = self.packed(key_states), self.packed(value_states)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys.index_copy_(0, plan.slots_T, key_states[0].transpose(0, 1))
        self.values.index_copy_(0, plan.slots_T, value_states[0].transpose(0, 1))
        if plan.given_M is None:
            return self.keys.transpose(0, 1)[None], self.values.transpose(0, 1)[None]
        keys = self.unpacked(self.keys.index_select(0, plan.given_M), dtype)  # faster than [...]
        values = self.unpacked(self.values.index_select(0, plan.given_M), dtype)
        if plan.joint is not None:
            keys, values = plan.joint.screen(keys, values)
        return keys.transpose(0, 1)[None], values.transpose(0, 1)[None]

    def packed(self, values: Tensor) -> Tensor:
        """Return values [..., D] in the form in which they are kept."""
        return values

    def unpacked(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what is kept as values [..., D]."""
        return rows

    def grow(self, entries: int) -> None:
        """Enlarge the buffers to so many entries, keeping every entry; again, if it failed."""
        if self.is_initialized:
            self.keys = F.pad(self.keys, (0, 0, 0, 0, 0, entries - len(self.keys)))
            self.values = F.pad(self.values, (0, 0, 0, 0, 0, entries - len(self.values)))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Never asked for: every forward brings its own masks."""
        raise NotImplementedError("a step brings its own masks")

    def get_seq_length(self) -> int:
        """Entries in the longest lane, before the running step."""
        return max(self.cache.lengths, default=0)

    def get_max_length(self) -> int:
        """No maximum: lanes take pages as they need them."""
        return -1
