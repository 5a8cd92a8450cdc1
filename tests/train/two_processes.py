"""Two processes that train together, forked off: a new interpreter would take its time."""

import multiprocessing
import os
import socket
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, DistributedType, PartialState


def in_two_processes(work: Callable[..., None], folder: Path, *arguments: Any) -> None:
    """Runs `work(rank, folder, *arguments)` in both, and raises what one of them raised."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_one_of_two, args=(rank, port, work, folder, arguments))
        for rank in (0, 1)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks, where there are threads
        for process in processes:
            process.start()
    for process in processes:
        process.join(timeout=240)
        process.kill()
    errors = [file.read_text() for file in folder.glob("*.error")]
    assert not errors, errors[0]


def _one_of_two(
    rank: int, port: int, work: Callable[..., None], folder: Path, arguments: tuple[Any, ...]
) -> None:
    try:
        torch.set_num_threads(1)
        AcceleratorState._reset_state(reset_partial_state=True)  # that of the tests before
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        work(rank, folder, *arguments)
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
        raise


def shard_from_now_on() -> None:
    """accelerate shards by FSDP2, in this process from now on, though it does so on no CPU.

    It is told that these processes have devices of their own; all else is its own way.
    """
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    os.environ |= {"FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
    os.environ |= {"FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}
    os.environ |= {"FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}
    initialise = PartialState.__init__

    def claim(self: PartialState, *arguments: Any, **keywords: Any) -> None:
        first = not PartialState._shared_state
        initialise(self, *arguments, **keywords)
        if first:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = claim
    AcceleratorState._reset_state(reset_partial_state=True)
