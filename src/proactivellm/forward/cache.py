"""The arrival-order KV store: one preallocated, paged buffer per layer for all lanes.

Rotary positions are applied before keys enter a cache, so the order of entries is free: a lane
appends entries of all groups as they arrive. Nothing is re-encoded or merged; taking back the last
entries (an open probe) is a change of length. Implements the Cache protocol of transformers, so
that unmodified models write into it.
Legend: N = entries of the store, H = key/value heads, D = head dimension, T = new tokens of a step
(all lanes, packed), K = entries of a lane.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache

from proactivellm.core.positions import Reached
from proactivellm.forward.layer import ArrivalLayer
from proactivellm.forward.pages import PagePool, StoreFull
from proactivellm.forward.plan import Scratch, StepPlan, Store

PAGE = 2  # entries per page: a lane wastes half of one on average
INITIAL_PAGES = 32  # of a store that may grow
GROWTH = 8  # it grows by an eighth: little is held in reserve, and copies stay rare


class ArrivalCache(Cache):
    """All layers' buffers, and which entries are whose.

    A capacity is preallocated and never exceeded. Without one it grows when it is full, by one part
    in `growth`.
    """

    def __init__(
        self,
        num_layers: int,
        num_lanes: int,
        device: torch.device,
        capacity: int | None = None,
        growth: int = GROWTH,
        layer: type[ArrivalLayer] = ArrivalLayer,
    ) -> None:
        if capacity is not None and capacity < PAGE:
            raise ValueError(f"capacity={capacity}: give at least {PAGE} entries")
        self.num_lanes = num_lanes
        self.may_grow = capacity is None
        self.growth = growth
        self.pool = PagePool(INITIAL_PAGES if capacity is None else capacity // PAGE)
        self.lengths = [0] * num_lanes  # entries that count, per lane; later ones are overwritten
        self.units = [0] * num_lanes  # source units among them
        # What positions go on from, where the numbers of tokens do not tell.
        self.reached: list[Reached | None] = [None] * num_lanes
        self.pages: list[list[int]] = [[] for _ in range(num_lanes)]
        self.contiguous = [True] * num_lanes  # a lane's pages lie side by side
        self.page_table = np.zeros((num_lanes, 4), dtype=np.int64)
        self.scratch = Scratch()
        self.growths = 0  # times that the buffers were replaced
        # Group, position and unit of every entry, and whether it lies in space: [4, N].
        self.kinds = torch.zeros(4, self.num_entries, dtype=torch.long, device=device)
        self.kv = layer.kv
        super().__init__(layers=[layer(self) for _ in range(num_layers)])

    @property
    def num_entries(self) -> int:
        """Entries of the store, in use or not."""
        return self.pool.num_pages * PAGE

    def begin(self, plan: StepPlan) -> None:
        """Announce what the next forward writes and attends to."""
        for layer in self._layers():
            layer.plan = plan

    def store(self) -> Store:
        """What a plan needs to know of it."""
        return Store(
            page=PAGE,
            page_table=self.page_table,
            contiguous=self.contiguous,
            kinds=self.kinds,
            scratch=self.scratch,
            whole=self.kv is None,
        )

    def entry_bytes(self) -> int:
        """Bytes of the keys and values of one entry over all layers; 0 before the first step."""
        return sum(
            buffer[0].numel() * buffer.element_size()
            for layer in self._layers()
            if layer.is_initialized
            for buffer in (layer.keys, layer.values)
        )

    def missing_pages(self, lane: int, length: int) -> int:
        """Pages a lane has to take before it can hold that many entries."""
        return max(0, -(-length // PAGE) - len(self.pages[lane]))

    def reserve(self, lane: int, length: int) -> None:
        """Give a lane pages for that many entries; StoreFull if it is full and may not grow."""
        missing = self.missing_pages(lane, length)
        if not missing:
            return
        if missing > self.pool.num_free:
            if not self.may_grow:
                raise StoreFull(
                    f"a stream needs {missing} pages of {PAGE} entries and {self.pool.num_free} of "
                    f"{self.pool.num_pages} are free"
                )
            self._grow(max(missing - self.pool.num_free, self.pool.num_pages // self.growth))
        mine = self.pages[lane]
        if len(mine) + missing > self.page_table.shape[1]:
            wider = max(len(mine) + missing, 2 * self.page_table.shape[1])
            extra = wider - self.page_table.shape[1]
            self.page_table = np.pad(self.page_table, ((0, 0), (0, extra)))
        for _ in range(missing):
            page = self.pool.take(mine[-1] if mine else None)
            self.contiguous[lane] &= not mine or page == mine[-1] + 1
            self.page_table[lane, len(mine)] = page
            mine.append(page)

    def entry_kinds(self, lane: int) -> Tensor:
        """`kinds` of a lane's entries, in their order: int64 [4, K]."""
        return self.kinds[:, self._slots(lane)]

    def clear(self, lane: int) -> None:
        """Forget a lane's entries and give its pages back."""
        self.pool.give(self.pages[lane])
        self.pages[lane] = []
        self.contiguous[lane] = True
        self.lengths[lane] = self.units[lane] = 0
        self.reached[lane] = None

    @torch.inference_mode()
    def order(self, lane: int, places: Tensor) -> None:
        """Keep only the entries at these places of a lane, in this order."""
        slots, length = self._slots(lane), len(places)
        old, new = slots[places], slots[:length]
        for layer in self._layers():
            if layer.is_initialized:
                layer.keys[new], layer.values[new] = layer.keys[old], layer.values[old]
        self.kinds[:, new] = self.kinds[:, old]
        self.lengths[lane] = length

    def entries(self, lane: int, places: Tensor) -> dict[str, Any]:
        """Keys, values and kinds of the entries at these places, as `snapshot` has them."""
        slots = self._slots(lane)[places]
        layers = [layer for layer in self._layers() if layer.is_initialized]
        return {
            "keys": [layer.keys[slots] for layer in layers],
            "values": [layer.values[slots] for layer in layers],
            "kinds": self.kinds[:, slots],
        }

    @torch.inference_mode()
    def append(self, lane: int, entries: dict[str, Any]) -> None:
        """Put what `entries` gave behind the entries of a lane, from wherever it lies."""
        before, kinds = self.lengths[lane], entries["kinds"]
        self.reserve(lane, before + kinds.shape[1])
        self.lengths[lane] = before + kinds.shape[1]
        slots = self._slots(lane)[before:]
        both = zip(self._layers(), entries["keys"], entries["values"], strict=True)
        for layer, keys, values in both:
            layer.keys[slots], layer.values[slots] = keys.to(layer.keys), values.to(layer.values)
        self.kinds[:, slots] = kinds.to(self.kinds)

    def snapshot(self, lane: int) -> dict[str, Any]:
        """A lane's entries as plain tensors, for cloning and saving.

        `keys` and `values` are lists of [K, H, D], or as `kv` keeps them, one per layer; `kinds`
        is [4, K].
        """
        places = torch.arange(self.lengths[lane], device=self.kinds.device)
        return {
            **self.entries(lane, places),
            "units": self.units[lane],
            "reached": self.reached[lane],
            "kv": self.kv,
        }

    @torch.inference_mode()  # the buffers were made in it
    def restore(self, lane: int, state: dict[str, Any]) -> None:
        """Put a snapshot into a lane; what it held is lost.

        Raises:
            ValueError: if it is of another model.
            StoreFull: if the store has no room for it.
        """
        self._check(state)
        length = state["kinds"].shape[1]
        entries = [  # moved before anything is given up: memory may run out
            (keys.to(self.kinds.device), values.to(self.kinds.device))
            for keys, values in zip(state["keys"], state["values"], strict=True)
        ]
        self.reserve(lane, length)
        self.clear(lane)
        self.reserve(lane, length)  # the same number, laid out anew
        self.lengths[lane], self.units[lane] = length, state["units"]
        self.reached[lane] = state.get("reached")  # snapshots of text may lack it
        slots = self._slots(lane)
        for layer, (keys, values) in zip(self._layers(), entries, strict=False):
            if not layer.is_initialized:
                layer.lazy_initialization(keys.transpose(0, 1)[None], values.transpose(0, 1)[None])
            layer.keys[slots] = keys.to(layer.keys)
            layer.values[slots] = values.to(layer.values)
        kinds = state["kinds"].to(self.kinds)
        self.kinds[:, slots] = F.pad(kinds, (0, 0, 0, 4 - len(kinds)))  # 3 in older files: of text

    def _check(self, state: dict[str, Any]) -> None:
        """Refuse entries of another model, or kept in another form."""
        if state.get("kv") != self.kv:
            raise ValueError(
                f"the snapshot has kv {state.get('kv') or 'none'}, this cache "
                f"{self.kv or 'none'}: give the same to both"
            )
        if len(state["keys"]) not in (0, len(self.layers)):
            raise ValueError(
                f"the snapshot has {len(state['keys'])} layers, the model {len(self.layers)}"
            )
        length = state["kinds"].shape[1]
        for name in ("keys", "values"):
            for layer, entries in zip(self._layers(), state[name], strict=False):
                if len(entries) != length:
                    raise ValueError(f"the snapshot has {len(entries)} {name} of {length} entries")
                buffer = getattr(layer, name) if layer.is_initialized else entries
                if entries.shape[1:] != buffer.shape[1:]:
                    raise ValueError(
                        f"the snapshot has {name} of {list(entries.shape[1:])} heads and width, "
                        f"the model of {list(buffer.shape[1:])}"
                    )

    def _slots(self, lane: int) -> Tensor:
        """Slots of a lane's entries, in their order: int64 [K]."""
        j_K = np.arange(self.lengths[lane])
        slots_K = self.page_table[lane, j_K // PAGE] * PAGE + j_K % PAGE
        return torch.from_numpy(slots_K).to(self.kinds.device)

    def _layers(self) -> list[ArrivalLayer]:
        return self.layers  # type: ignore[return-value]

    @torch.inference_mode()
    def _grow(self, pages: int) -> None:
        """Enlarge the store; where memory runs out half way, all that was stays usable."""
        entries = self.num_entries + pages * PAGE
        self.growths += 1
        for layer in self._layers():
            layer.grow(entries)
        self.kinds = F.pad(self.kinds, (0, entries - self.kinds.shape[1]))
        self.pool.grow(pages)
