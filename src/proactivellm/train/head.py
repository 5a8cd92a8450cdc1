"""The output layer over chunks of rows: one gradient of its weight, to which every chunk adds.

Autograd makes a gradient as large as the weight for each chunk and each view before it adds them
up: of a large vocabulary they take more memory than the logits of a chunk, and most of the time.
Legend: R = rows, V = vocabulary, D = model width.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from proactivellm.backbone.decoder import Parts


def projection(model: PreTrainedModel, in_chunks: bool) -> Callable[[Tensor], Tensor]:
    """What turns hidden states [R, D] into the logits [R, V] of a model, for one backward pass.

    In chunks, a plain linear layer that is learnt gathers its gradient. Other output layers
    (adapters, quantised weights, weights that a hook puts in place) are called as they are.
    """
    parts = Parts(model)
    layer = parts.output_layer
    learnt = layer.weight.requires_grad and torch.is_grad_enabled()
    if not (in_chunks and is_plain(layer) and learnt):
        return parts.project
    linear = gathering(layer)
    return lambda hidden_RD: parts.finish(linear(hidden_RD))


def is_plain(layer: nn.Module) -> bool:
    """Whether what an output layer computes is that of its weight and bias, and nothing else."""
    return type(layer) is nn.Linear and not (layer._forward_hooks or layer._forward_pre_hooks)


def gathering(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    """The same function of rows, which may be called on many chunks before their backward pass."""
    total: list[Tensor] = []  # the gradient, once there is one
    weight_VD, device = layer.weight, layer.weight.device.type
    if torch.is_autocast_enabled(device):
        weight_VD = weight_VD.to(torch.get_autocast_dtype(device))
    weight_VD = _Gathered.apply(weight_VD, total)

    def linear(hidden_RD: Tensor) -> Tensor:
        bias_V = None if layer.bias is None else layer.bias.to(weight_VD.dtype)
        logits_RV: Tensor = _Linear.apply(hidden_RD.to(weight_VD.dtype), weight_VD, bias_V, total)
        return logits_RV

    return linear


class _Gathered(torch.autograd.Function):
    """A weight whose gradient is what `_Linear` has put into a list."""

    @staticmethod
    def forward(ctx: Any, weight_VD: Tensor, total: list[Tensor]) -> Tensor:
        ctx.total = total
        ctx.set_materialize_grads(False)
        return weight_VD.view_as(weight_VD)

    @staticmethod
    def backward(ctx: Any, _: Any) -> Any:
        # Every `_Linear` has run: this waits for all of them, though they pass nothing on to it.
        return (ctx.total.pop() if ctx.total else None), None


class _Linear(torch.autograd.Function):
    """A linear layer that adds to the gradient of its weight in place."""

    @staticmethod
    def forward(
        ctx: Any, hidden_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, total: list[Tensor]
    ) -> Tensor:
        ctx.save_for_backward(hidden_RD, weight_VD)
        ctx.total = total
        return F.linear(hidden_RD, weight_VD, bias_V)

    @staticmethod
    def backward(ctx: Any, grad_RV: Tensor) -> Any:
        hidden_RD, weight_VD = ctx.saved_tensors
        if ctx.total:
            ctx.total[0].addmm_(grad_RV.t(), hidden_RD)
        else:
            ctx.total.append(grad_RV.t() @ hidden_RD)
        bias_V = grad_RV.sum(0) if ctx.needs_input_grad[2] else None
        return grad_RV @ weight_VD, None, bias_V, None
