"""A learner whose weights lie in parts on several processes: FSDP2, or DeepSpeed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from proactivellm.train.learner import Learner

_OPTIMISER = {DistributedType.FSDP: "optimizer.bin", DistributedType.DEEPSPEED: "latest"}


def check_sharding(accelerator: Accelerator) -> None:
    """Refuse (ValueError) a configuration of FSDP whose checkpoints are no model folders."""
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    plugin: Any = accelerator.state.fsdp_plugin
    wanted = {
        "fsdp_version": (plugin.fsdp_version, 2),
        "fsdp_state_dict_type": (plugin.state_dict_type.name, "FULL_STATE_DICT"),
        "fsdp_cpu_ram_efficient_loading": (bool(plugin.cpu_ram_efficient_loading), False),
    }
    for key, (value, expected) in wanted.items():
        if value != expected:
            raise ValueError(
                f"{key} is {value} in the configuration of accelerate, and training needs "
                f"{expected}: see recipes/accelerate/fsdp2.yaml"
            )


def check_optimiser(accelerator: Accelerator, checkpoint: str) -> None:
    """Refuse (ValueError) a checkpoint whose optimiser was sharded otherwise than this run's.

    The Trainer would go on with a new optimiser, and say nothing.
    """
    name = _OPTIMISER.get(accelerator.distributed_type, "optimizer.pt")
    if not (Path(checkpoint) / name).exists():
        raise ValueError(
            f"{checkpoint} has no optimiser that this run can load ({name}): DDP and one process, "
            "FSDP2, and DeepSpeed each go on from checkpoints of their own kind only"
        )


def whole(value: Tensor | float) -> Tensor:
    """A number of which each process may have a part, such as a gradient norm."""
    return value.full_tensor() if isinstance(value, DTensor) else torch.as_tensor(value)


def whole_weights(accelerator: Accelerator, model: nn.Module) -> dict[str, Tensor] | None:
    """All weights of a wrapped model, on the first process; None where they are in place.

    All processes must call this.
    """
    if accelerator.distributed_type not in _OPTIMISER:
        return None
    weights: dict[str, Tensor] = accelerator.get_state_dict(model)
    return weights


def put_in(learner: Learner, weights: Mapping[str, Tensor]) -> None:
    """Replace parts of weights by the whole; the learner can be saved then, but not run."""
    for module in learner.modules():
        if isinstance(module, FSDPModule):  # put before the module's own class, to move shards
            module.__class__ = type(module).__bases__[1]
    for name, tensor in weights.items():
        owner, _, leaf = name.rpartition(".")
        parameters = learner.get_submodule(owner)._parameters
        if leaf in parameters:
            parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    learner.model.tie_weights()
