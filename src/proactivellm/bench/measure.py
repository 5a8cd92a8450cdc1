"""Clocks, percentiles, memory and bandwidth: how things are measured, on any device.

Units: seconds inside, milliseconds in results (`_ms`), bytes (`_bytes`).
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from proactivellm.forward.cache import PAGE, ArrivalCache
from proactivellm.forward.causal_lm import StreamingCausalLM

_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31}  # beyond every cache
_COPIES = 8
Result = TypeVar("Result")


@dataclass
class Laps:
    """Wall time of laps, work of the device included, and processor time of all threads in them."""

    device: torch.device
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def time(self, work: Callable[[], Result | None]) -> Result | None:
        """Times a call and returns its result; None means that there was nothing to do: no lap."""
        with self.lap():
            result = work()
        if result is None:
            del self.wall_s[-1], self.cpu_s[-1]
        return result

    @contextmanager
    def lap(self) -> Iterator[None]:
        """Times what is done inside."""
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        yield
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        self.wall_s.append(time.perf_counter() - wall_s)
        self.cpu_s.append(time.process_time() - cpu_s)


def percentiles_ms(times_s: Sequence[float]) -> dict[str, float]:
    """`mean`, `p50`, `p95` and `p99` in ms of at least one time in seconds."""
    p50, p95, p99 = 1000 * np.percentile(times_s, [50, 95, 99])
    values = {"mean": 1000 * fmean(times_s), "p50": p50, "p95": p95, "p99": p99}
    return {name: round(float(value), 4) for name, value in values.items()}


def held_entries(cache: ArrivalCache) -> int:
    """Entries of the pages that lanes hold."""
    return PAGE * sum(map(len, cache.pages))


def memory(device: torch.device) -> dict[str, int | None]:
    """Memory of the process now and at most, and of the device at most; None where unknown."""
    statm, rss, peak, on_device = Path("/proc/self/statm"), None, None, None
    if statm.exists():
        rss = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
        peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device.type == "cuda":
        on_device = torch.cuda.max_memory_allocated(device)
    return {"rss_bytes": rss, "peak_rss_bytes": peak, "peak_device_bytes": on_device}


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of the best of some large copies."""
    size = _COPY_BYTES.get(device.type, _COPY_BYTES["cpu"])
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    laps = Laps(device)
    for _ in range(_COPIES):
        with laps.lap():
            target.copy_(source)
    # The best: whatever disturbs a copy makes it slower, nothing makes it faster.
    return 2 * size / min(laps.wall_s)


def weight_bytes(model: StreamingCausalLM) -> tuple[int, int]:
    """Bytes of all weights, and of those that every step reads.

    An input embedding that is not the output layer too is not read whole.
    """
    # By identity: an embedding tied to the output layer is one parameter.
    sizes = {id(p): _bytes(p) for p in model.model.parameters()}
    embedding = model.model.get_input_embeddings().weight
    tied = embedding is model.model.get_output_embeddings().weight
    total = sum(sizes.values())
    return total, total if tied else total - sizes[id(embedding)]


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What the numbers were measured on, and with."""
    affinity = getattr(os, "sched_getaffinity", None)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "cpu": _cpu_name(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "device": str(device),
        "device_name": name,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


def model_facts(model: StreamingCausalLM) -> dict[str, Any]:
    """Shape and size of a model."""
    config = model.model.config.get_text_config()
    total, read = weight_bytes(model)
    return {
        "model_type": config.model_type,
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "vocabulary": config.vocab_size,
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "weight_bytes": total,
        "weight_bytes_per_step": read,
    }


def _bytes(tensor: Tensor) -> int:
    """Of a parameter, also where it is made of others (8-bit weights)."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.numel() * tensor.element_size()
    names, _ = tensor.__tensor_flatten__()
    return sum(_bytes(getattr(tensor, name)) for name in names)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
