"""The arrival-order KV cache: one append-only buffer per lane, source and target entries mixed.

Rotary positions are applied before keys enter a cache, so the order of entries is free. Nothing is
re-encoded, merged or copied; taking back a probe is a change of length. Implements the Cache
protocol of transformers, so that unmodified models write into it.
Legend: B = lanes, H = key/value heads, C = capacity, Q = new tokens per lane, K = entries in use,
D = head dimension.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

INITIAL_CAPACITY = 256  # entries per lane; doubled when full


@dataclass(frozen=True)
class Entries:
    """What cache entries (or new tokens) are: parallel int64 tensors [B, K].

    Attributes:
        group: source or target.
        position: position id.
        unit: index of the source unit from 1; 0 for the prompt and for target tokens.
    """

    group: Tensor
    position: Tensor
    unit: Tensor


class ArrivalLayer(CacheLayerMixin):
    """Keys and values of one layer, each [B, H, C, D].

    Args:
        cache: the cache it belongs to, which says where a step writes.
    """

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, cache: "ArrivalCache") -> None:
        super().__init__()
        self.cache = weakref.proxy(cache)  # no cycle: a dropped cache frees its buffers at once

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate buffers of the shape that the first keys and values show."""
        shape = (self.cache.num_lanes, key_states.shape[1], self.cache.capacity)
        self.keys = key_states.new_zeros(*shape, key_states.shape[3])
        self.values = value_states.new_zeros(*shape, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new entries [B, H, Q, D] at the slots of this step; return all in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        lanes_B, slots_BQ, used = self.cache.step
        self.keys[lanes_B[:, None], :, slots_BQ] = key_states.transpose(1, 2)
        self.values[lanes_B[:, None], :, slots_BQ] = value_states.transpose(1, 2)
        keys, values = self.keys[:, :, :used], self.values[:, :, :used]
        if self.cache.step_is_whole:
            return keys, values
        return keys[lanes_B], values[lanes_B]

    def grow(self, extra: int) -> None:
        """Enlarge the buffers by `extra` entries, keeping every entry."""
        if self.is_initialized:
            self.keys = F.pad(self.keys, (0, 0, 0, extra))
            self.values = F.pad(self.values, (0, 0, 0, extra))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Entries that the running step attends to, from 0."""
        return self.cache.step[2], 0

    def get_seq_length(self) -> int:
        """Entries in the longest lane, before the running step."""
        return max(self.cache.lengths, default=0)

    def get_max_length(self) -> int:
        """No maximum: the buffers grow."""
        return -1


class ArrivalCache(Cache):
    """All layers' buffers, and what each entry is.

    Args:
        num_layers: attention layers of the model.
        num_lanes: sessions held at once.
        device: of the bookkeeping tensors.
    """

    def __init__(self, num_layers: int, num_lanes: int, device: torch.device) -> None:
        self.num_lanes = num_lanes
        self.capacity = INITIAL_CAPACITY
        self.lengths = [0] * num_lanes  # entries that count, per lane; later ones are overwritten
        empty = torch.zeros(num_lanes, self.capacity, dtype=torch.long, device=device)
        self.entries = Entries(group=empty, position=empty.clone(), unit=empty.clone())
        self.step: tuple[Tensor, Tensor, int] = (empty[:, 0], empty[:, :1], 0)
        self.step_is_whole = True  # all lanes take part, in order: no copy of the buffers
        super().__init__(layers=[ArrivalLayer(self) for _ in range(num_layers)])

    def begin_step(self, lanes_B: Tensor, slots_BQ: Tensor, new: Entries) -> Entries:
        """Announce where the next forward writes, and what.

        Args:
            lanes_B: distinct lanes that take part.
            slots_BQ: entry of each new token; a lane's slots run on from its length.
            new: what the new tokens are.

        Returns:
            All entries of these lanes that the forward attends to.
        """
        used = int(slots_BQ.max()) + 1
        if used > self.capacity:
            self._grow(max(used, 2 * self.capacity))
        for mine, added in zip(_tensors(self.entries), _tensors(new), strict=True):
            mine[lanes_B[:, None], slots_BQ] = added
        self.step = (lanes_B, slots_BQ, used)
        self.step_is_whole = lanes_B.tolist() == list(range(self.num_lanes))
        return Entries(*(tensor[lanes_B, :used] for tensor in _tensors(self.entries)))

    def snapshot(self, lane: int) -> dict[str, Any]:
        """A lane's entries as plain tensors, for cloning and saving.

        Args:
            lane: which one.

        Returns:
            `keys` and `values` (lists of [H, K, D], one per layer) and `entries` ([3, K]).
        """
        used = self.lengths[lane]
        layers = [layer for layer in self._layers() if layer.is_initialized]
        return {
            "keys": [layer.keys[lane, :, :used].clone() for layer in layers],
            "values": [layer.values[lane, :, :used].clone() for layer in layers],
            "entries": torch.stack([t[lane, :used] for t in _tensors(self.entries)]),
        }

    @torch.inference_mode()  # the buffers were made in it
    def restore(self, lane: int, state: dict[str, Any]) -> None:
        """Put a snapshot into a lane.

        Args:
            lane: which one; what it held is lost.
            state: from `snapshot`, of the same model.

        Raises:
            ValueError: if it is of another model.
        """
        if len(state["keys"]) not in (0, len(self.layers)):
            raise ValueError(
                f"the snapshot has {len(state['keys'])} layers, the model {len(self.layers)}"
            )
        used = state["entries"].shape[1]
        if used > self.capacity:
            self._grow(used)
        for layer, keys, values in zip(
            self._layers(), state["keys"], state["values"], strict=False
        ):
            if not layer.is_initialized:
                layer.lazy_initialization(keys[None], values[None])
            layer.keys[lane, :, :used] = keys
            layer.values[lane, :, :used] = values
        for mine, saved in zip(_tensors(self.entries), state["entries"], strict=True):
            mine[lane, :used] = saved
        self.lengths[lane] = used

    def _layers(self) -> list[ArrivalLayer]:
        return self.layers  # type: ignore[return-value]

    def _grow(self, capacity: int) -> None:
        extra = capacity - self.capacity
        self.entries = Entries(*(F.pad(tensor, (0, extra)) for tensor in _tensors(self.entries)))
        self.capacity = capacity
        for layer in self._layers():
            layer.grow(extra)


def _tensors(entries: Entries) -> tuple[Tensor, Tensor, Tensor]:
    return entries.group, entries.position, entries.unit
