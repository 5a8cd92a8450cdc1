"""Steps of fixed shapes: captured once as a CUDA graph, or compiled, and then replayed.

A graph replays a forward without its launches, which dominate small steps; torch.compile also
fuses what stands between the matrix products. Both want the same shapes every time: a step is
padded to a bucket by repeating its last lane, and in each lane its last token. A repeated token
has the same position, entry and result as the one it repeats, so that nothing needs to be masked.
Legend: B = lanes of the bucket, Q = new tokens per lane, T = B * Q, K = entries per lane,
P = lanes that probe, V = vocabulary.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from proactivellm.forward.cache import PAGE, ArrivalCache
from proactivellm.forward.lanes import NewTokens, StepOutput
from proactivellm.forward.plan import Part, StepPlan, entry_masks, given_slots, new_slots, own_slots
from proactivellm.forward.probe import AttentionProbe, Chosen

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM

MAX_NEW = 8  # new tokens per lane of the largest bucket; longer steps run as they are
MIN_ENTRIES = 256  # entries per lane of the smallest bucket; each further one is twice as large
WARM_UP = 1  # runs before a capture: lazy initialisation must not be part of it

Mode = Literal["graph", "compile"]


@dataclass(frozen=True)
class Bucket:
    """The shapes of a step.

    Attributes:
        lanes: B.
        new: Q.
        entries: K.
        attention: whether attention weights come back.
    """

    lanes: int
    new: int
    entries: int
    attention: bool


class StaticSteps:
    """Runs steps in buckets, each captured or compiled when it is first met.

    Args:
        mode: `graph` captures CUDA graphs (elsewhere the same steps run uncaptured), `compile`
            compiles the step first.

    Raises:
        ValueError: if the model does its attention by itself.
    """

    def __init__(self, model: "StreamingCausalLM", mode: Mode = "graph") -> None:
        if model.joint:
            raise ValueError(
                f"model type {model.model.config.model_type!r} does its attention by itself: its "
                "steps have no fixed shapes; leave acceleration off"
            )
        self.model = model
        self.mode = mode
        self._steps: WeakKeyDictionary[ArrivalCache, dict[Bucket, _StaticStep]]
        self._steps = WeakKeyDictionary()

    def takes(self, new: NewTokens) -> bool:
        """Whether a step fits a bucket.

        It has few new tokens per lane, all ids, of which one probes; all that arrived is seen.
        """
        one_row = len(set(new.probing)) == len(new.probing)
        all_seen = new.horizon_T is None and new.oldest_T is None
        return one_row and all_seen and int(new.counts.max()) <= MAX_NEW and not new.features

    def run(
        self,
        cache: ArrivalCache,
        new: NewTokens,
        num_units: int,
        attention: bool,
    ) -> StepOutput | None:
        """One forward.

        Args:
            num_units: most units that one of them has in its cache.
            attention: capture the attention of probing tokens.

        Returns:
            The output of the probing lanes, or None if none probes.
        """
        bucket = Bucket(
            lanes=_power_of_two(len(new.lanes)),
            new=_power_of_two(int(new.counts.max())),
            entries=max(MIN_ENTRIES, _power_of_two(int((new.lengths + new.counts).max()))),
            attention=attention and bool(new.probing),
        )
        steps = self._steps.setdefault(cache, {})
        if any(step.growths != cache.growths for step in steps.values()):
            steps.clear()  # the store has grown: what was captured writes into its old buffers
        if bucket not in steps:
            # One pool of memory for all graphs of a cache: they never run at the same time, and
            # what one puts out is copied before the next one runs. It ends with the last graph.
            pool = next((step.pool for step in steps.values()), None)
            steps[bucket] = _StaticStep(self.model, cache.growths, bucket, self.mode, pool)
        logits_BV, hidden_BD, weights_LBHK, unit_BK = steps[bucket].run(cache, new)
        if not new.probing:
            return None
        rows = torch.tensor(new.probing, device=logits_BV.device)
        return StepOutput(
            logits_PV=logits_BV[rows],
            hidden_PD=hidden_BD[rows],
            weights_LPHK=None if weights_LBHK is None else weights_LBHK[:, rows],
            unit_PK=None if unit_BK is None else unit_BK[rows],
            num_units=num_units,
        )


_Outputs = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


class _StaticStep:
    """The forward of one bucket, and its input buffer: one copy to the device per step."""

    def __init__(
        self,
        model: "StreamingCausalLM",
        growths: int,
        bucket: Bucket,
        mode: Mode,
        pool: Any,
    ) -> None:
        self.model, self.growths, self.bucket = model, growths, bucket
        tokens, pages = bucket.lanes * bucket.new, bucket.entries // PAGE
        # Of every token: id, four kinds, slot and stamp; of every lane: the row that probes, and
        # its pages.
        self.size = 7 * tokens + bucket.lanes * (1 + pages)
        cuda = model.device.type == "cuda"
        self.pool = torch.cuda.graph_pool_handle() if cuda and pool is None else pool
        self.host = torch.zeros(self.size, dtype=torch.long, pin_memory=cuda)
        self.inputs = torch.zeros(self.size, dtype=torch.long, device=model.device)
        # Not bound to `self`: a step that is dropped frees its graph at once, and not when the
        # garbage collector comes by.
        self.function: Callable[[_StaticStep, ArrivalCache], _Outputs] = _StaticStep._forward
        if mode == "compile":
            self.function = torch.compile(_copied(self.function), dynamic=False)
        self.copied: torch.cuda.Event | None = None
        self.warm = False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.outputs: _Outputs | None = None

    def run(self, cache: ArrivalCache, new: NewTokens) -> _Outputs:
        """Fill the buffer and compute, or replay."""
        self._fill(cache, new)
        if not self.warm:  # buffers are allocated by the first forward, and not in a graph
            self._forward(cache)
            self.warm = True
        if self.model.device.type != "cuda":
            return self.function(self, cache)
        if self.graph is None:
            self._capture(cache)
        assert self.graph is not None and self.outputs is not None
        self.graph.replay()
        return self.outputs  # the next replay overwrites them

    def _fill(self, cache: ArrivalCache, new: NewTokens) -> None:
        bucket, store = self.bucket, cache.store()
        lane_B = np.minimum(np.arange(bucket.lanes), len(new.lanes) - 1)
        within_BQ = np.minimum(np.arange(bucket.new), new.counts[lane_B][:, None] - 1)
        index_T = (new.first[lane_B][:, None] + within_BQ).ravel()
        pages = np.zeros((bucket.lanes, bucket.entries // PAGE), dtype=np.int64)
        used = min(pages.shape[1], store.page_table.shape[1])
        pages[:, :used] = store.page_table[new.lanes[lane_B], :used]
        slots_T, places_T = new_slots(store, new), new.places
        rows = (new.ids[index_T], *new.kinds_4T[:, index_T], slots_T[index_T], places_T[index_T])
        if self.copied is not None:
            self.copied.synchronize()  # the previous step, if nobody waited for it, may still read
        probe_B = new.counts - 1  # where none is asked for, any row will do
        probe_B[new.probing] = new.within
        self.host.numpy()[:] = np.concatenate([*rows, probe_B[lane_B], pages.ravel()])
        self.inputs.copy_(self.host, non_blocking=True)
        if self.host.is_pinned():
            self.copied = torch.cuda.Event()
            self.copied.record()

    def _forward(self, cache: ArrivalCache) -> _Outputs:
        """The whole step as a function of `inputs` and the store."""
        bucket, model = self.bucket, self.model
        tokens = bucket.lanes * bucket.new
        token_7T = self.inputs[: 7 * tokens].view(7, tokens)
        ids_T, kinds_4T, slots_T, stamps_T = token_7T[0], token_7T[1:5], token_7T[5], token_7T[6]
        within_B, pages_BP = self.inputs[7 * tokens :].split(
            [bucket.lanes, self.size - 7 * tokens - bucket.lanes]
        )
        pages_BP = pages_BP.view(bucket.lanes, -1)
        lane_B = torch.arange(bucket.lanes, device=ids_T.device)
        cache.kinds.index_copy_(1, slots_T, kinds_4T)
        within = torch.arange(PAGE, device=ids_T.device)
        slots_BK = (pages_BP[:, :, None] * PAGE + within).view(bucket.lanes, -1)
        stamps_BQ = stamps_T.view(bucket.lanes, -1)
        ends_B = stamps_BQ[:, -1] + 1
        slots_BK = own_slots(slots_BK, ends_B)
        part = Part(
            inputs=np.arange(bucket.lanes),
            rows=None,
            slots=slots_BK,
            ends=ends_B,
            extent=None,
            masks=entry_masks(
                cache.kinds,
                slots_BK,
                kinds_4T.view(4, bucket.lanes, -1),
                stamps_BQ,
                model.layout,
                model.windows,
            ),
        )
        plan = StepPlan(
            slots_T=slots_T,
            parts=(part,),
            layer_types=model.layer_types,
            scratch=None,
            given_M=given_slots(cache.store(), (part,)),
        )
        chosen = Chosen(lane_B, within_B)
        probe = AttentionProbe(plan, [chosen], bucket.lanes) if bucket.attention else None
        embeddings = model.parts.embed(ids_T[None])
        hidden_1TD = model.attend(cache, plan, embeddings, kinds_4T[1:2], probe)
        hidden_BD = hidden_1TD[0, lane_B * bucket.new + within_B]
        logits_BV = model.parts.project(hidden_BD).float()
        if probe is None:
            return logits_BV, hidden_BD, None, None
        return logits_BV, hidden_BD, probe.weights(), probe.units(cache.kinds[2])

    def _capture(self, cache: ArrivalCache) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.function(self, cache)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads ask of the device must not end this capture.
        with (
            _no_garbage(),
            torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"),
        ):
            self.outputs = self.function(self, cache)
        self.graph = graph


@contextmanager
def _no_garbage() -> Iterator[None]:
    """A graph that the garbage collector frees during a capture would end it, and the process."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _copied(function: Callable[..., _Outputs]) -> Callable[..., _Outputs]:
    """The same function once more: torch compiles one function for eight shapes at most."""
    assert isinstance(function, FunctionType)
    code = function.__code__.replace()  # what is compiled is kept by this object
    return FunctionType(code, function.__globals__, function.__name__)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
