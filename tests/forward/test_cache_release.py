"""A cache that is dropped gives its memory back at once, without waiting for cycle collection."""

import gc
import weakref

import torch

from proactivellm.forward.cache import ArrivalCache


def test_a_dropped_cache_is_freed_without_the_collector() -> None:
    gc.disable()
    try:
        cache = ArrivalCache(num_layers=2, num_lanes=1, device=torch.device("cpu"))
        layer = weakref.ref(cache.layers[0])
        del cache
        assert layer() is None
    finally:
        gc.enable()
