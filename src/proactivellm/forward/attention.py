"""The attention function given to transformers: follows the plan of a step, feeds a probe.

Plan and probe are arguments of the decoder's forward that transformers hands down to the attention
function: no module is patched, no state is kept between steps. Without a plan it is masked
attention as usual, for training and for the law.
Legend: B = lanes, H = heads, G = key/value heads, Q = new tokens per lane, T = new tokens, packed,
K = entries, N = entries of the store, D = head dimension.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from proactivellm.forward.plan import Part, Scratch, StepPlan
from proactivellm.forward.probe import AttentionProbe, attention_weights
from proactivellm.forward.seen import Asked, StepControl

ANY_LENGTH = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
ATTENTION = "proactivellm"  # name of the attention function in transformers' registry


class Layer(NamedTuple):
    """A layer at its attention."""

    number: int
    kind: str  # as plans know layers
    probe: AttentionProbe | None
    control: StepControl | None


def streaming_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a step's new tokens to the entries of their own lanes.

    Args:
        query: [1, H, T, D] with a plan, else [B, H, Q, D].
        key: the store [1, G, N, D] or what the plan asks of it with a plan, else [B, G, K, D].
        value: as `key`.
        attention_mask: bool [B, 1, Q, K]; of no meaning with a plan.
        **kwargs: `plan`, `probe`, `control` (what layers do with what is seen), `scaling`,
            `softcap`, `s_aux` (learned sinks, [H]), `dropout` and what else the model passes.

    Returns:
        [1, T, H, D] or [B, Q, H, D], contiguous (some families view it as [.., H * D]), and None.
    """
    plan: StepPlan | None = kwargs.pop("plan", None)
    probe: AttentionProbe | None = kwargs.pop("probe", None)
    control: StepControl | None = kwargs.pop("control", None)
    scores = {
        "scaling": kwargs.get("scaling") or query.shape[-1] ** -0.5,
        "cap": kwargs.get("softcap"),
        "sinks": kwargs.get("s_aux"),
    }
    if plan is not None and plan.joint is None:
        kind = plan.layer_types[module.layer_idx]  # type: ignore[index]
        layer = Layer(module.layer_idx, kind, probe, control)  # type: ignore[arg-type]
        return _by_parts(query, key, value, plan, layer, scores).contiguous(), None
    if probe is not None:
        probe.capture_joint(query, key, attention_mask, **scores)
    if control is not None:
        number: Any = module.layer_idx
        attention_mask = control.mask(number, 0, attention_mask)
        asked = Asked(query, key, value, attention_mask, scores)
        out_BQHD = control.attend(number, 0, asked)
        return out_BQHD.contiguous(), None
    if scores["cap"] is not None or scores["sinks"] is not None:
        return attend(query, key, value, attention_mask, scores).contiguous(), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def register() -> None:
    """Make `streaming_attention` known to transformers under the name ATTENTION (idempotent)."""
    AttentionInterface.register(ATTENTION, streaming_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def attention_kernels(device: torch.device) -> AbstractContextManager[None]:
    """Kernels that are ready for any number of entries.

    cuDNN's, which torch prefers in half precision, are planned anew for each: 50 ms a step on an
    H200, as a stream that grows is of another length at each step.
    """
    return sdpa_kernel(ANY_LENGTH) if device.type == "cuda" else nullcontext()


def _by_parts(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: StepPlan,
    layer: Layer,
    scores: dict[str, Any],
) -> Tensor:
    """One attention call per part of the plan: [1, T, H, D]."""
    _, heads, num_new, width = query.shape
    result_THD = None
    begin = 0
    for index, part in enumerate(plan.parts):
        if part.rows is None:  # the only part
            query_BHQD = query.view(heads, part.slots.shape[0], -1, width).transpose(0, 1)
        else:
            query_BHQD = query[0].transpose(0, 1)[part.rows].transpose(1, 2)
        if plan.given_M is None:
            keys = _entries(key, part, plan.scratch, "keys")
            values = _entries(value, part, plan.scratch, "values")
        else:
            keys, values = _given(key, part, begin), _given(value, part, begin)
            begin += part.slots.numel()
        mask = part.masks[layer.kind]
        if layer.control is not None:
            mask = layer.control.mask(layer.number, index, mask)
        if layer.probe is not None:
            layer.probe.capture(index, query_BHQD, keys, mask, **scores)
        if layer.control is None:
            out_BQHD = attend(query_BHQD, keys, values, mask, scores)
        else:
            asked = Asked(query_BHQD, keys, values, mask, scores)
            out_BQHD = layer.control.attend(layer.number, index, asked)
        if part.rows is None:
            return out_BQHD.reshape(1, num_new, heads, -1)
        if result_THD is None:
            result_THD = out_BQHD.new_empty(num_new, heads, out_BQHD.shape[-1])
        result_THD[part.rows.flatten()] = out_BQHD.flatten(0, 1)  # repeated rows repeat the result
    assert result_THD is not None
    return result_THD[None]


def _entries(store: Tensor, part: Part, scratch: Scratch | None, name: str) -> Tensor:
    """Keys or values of a part, [B, G, K, D] of the store [1, G, N, D]; a view if possible."""
    if part.extent is not None:
        return store[:, :, slice(*part.extent)]
    rows_NW = store[0].transpose(0, 1).flatten(1)
    slots = part.slots.flatten()
    chosen = rows_NW[slots] if scratch is None else scratch.select(name, rows_NW, slots)
    return chosen.view(*part.slots.shape, store.shape[1], -1).transpose(1, 2)


def _given(entries: Tensor, part: Part, begin: int) -> Tensor:
    """Keys or values of a part, [B, G, K, D] of those given [1, G, M, D]; a view."""
    mine = entries[0, :, begin : begin + part.slots.numel()]
    return mine.unflatten(1, part.slots.shape).transpose(0, 1)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scores: dict[str, Any],
) -> Tensor:
    """Attention of [B, H, Q, D] to [B, G, K, D], with a mask [B, 1, Q, K]: [B, Q, H, D].

    The heads that share a key/value head become rows of it: no key is repeated.
    """
    if scores["cap"] is not None or scores["sinks"] is not None:  # the fused kernel has neither
        weights = attention_weights(query, key, mask, **scores).to(value.dtype)
        values = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
        return (weights @ values).transpose(1, 2)
    lanes, heads, num_new, width = query.shape
    groups = key.shape[1]
    shared = heads // groups
    if shared > 1:
        query = query.reshape(lanes, groups, shared * num_new, width)
        if mask is not None and num_new > 1:
            mask = mask.repeat(1, 1, shared, 1)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scores["scaling"])
    out_BGSQD = out.view(lanes, groups, shared, num_new, -1)
    return out_BGSQD.permute(0, 3, 1, 2, 4).reshape(lanes, num_new, heads, -1)
