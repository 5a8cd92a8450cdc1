"""The attention of the tokens that decide, captured while the forward runs.

Legend: B = lanes, P = lanes that probe, H = heads, L = layers, Q = new tokens per lane, T = new
tokens of all lanes, K = entries, U = units, D = head dimension.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from proactivellm.model.plan import StepPlan

NO_ATTENTION = (
    "this model family does its attention by itself, so that it cannot be looked at: "
    "take a policy that needs no attention, such as entropy"
)


class AttentionProbe:
    """Collects attention weights of the last token of chosen lanes, from every layer of a forward.

    Args:
        plan: of the forward.
        probing: indices of the inputs that probe.
        rows: packed index of the last token of each of them; only a joint plan asks for it.
    """

    def __init__(self, plan: StepPlan, probing: Sequence[int], rows: Sequence[int]) -> None:
        device = plan.slots_T.device
        self.plan = plan
        self.num_probing = len(probing)
        self.rows_P = None if plan.joint is None else torch.tensor(rows, device=device)
        self.lanes: list[Tensor | slice | None] = []  # of each part: all, some, none
        order: list[int] = []
        for part in plan.parts:
            inputs = part.inputs.tolist()
            found = [b for b, i in enumerate(inputs) if i in probing]
            order += [probing.index(inputs[b]) for b in found]
            if len(found) == len(inputs):
                self.lanes.append(slice(None))
            else:
                self.lanes.append(torch.tensor(found, device=device) if found else None)
        in_order = order == sorted(order)
        self.order_P = None if in_order else torch.tensor(order, device=device).argsort()
        self.captured: list[Tensor] = []

    def capture(
        self,
        part: int,
        query: Tensor,
        key: Tensor,
        mask: Tensor | None,
        scaling: float,
        **extras: Any,
    ) -> None:
        """Keep the weights of the probing lanes of a part.

        Args:
            part: index in the plan.
            query: [B, H, Q, D]; a lane's last token is in the last row.
            key: [B, H_kv, K, D].
            mask: bool [B, 1, Q, K].
            scaling: of the scores.
            **extras: `cap` and `sinks`, of families that have them.
        """
        lanes = self.lanes[part]
        if lanes is None:
            return
        query, key = query[lanes], key[lanes]
        mask = None if mask is None else mask[lanes][:, :, -1:]
        weights = attention_weights(query[:, :, -1:], key, mask, scaling, **extras)
        self.captured.append(weights[:, :, 0])

    def capture_joint(
        self, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, **extras: Any
    ) -> None:
        """Keep the weights of the probing tokens of all lanes packed in one row.

        Args:
            query: [1, H, T, D].
            key: [1, H_kv, K, D].
            mask: bool [1, 1, T, K].
            scaling: of the scores.
            **extras: `cap` and `sinks`, of families that have them.
        """
        assert self.rows_P is not None
        mask = None if mask is None else mask[:, :, self.rows_P]
        weights = attention_weights(query[:, :, self.rows_P], key, mask, scaling, **extras)
        self.captured.append(weights[0].transpose(0, 1))

    def weights(self) -> Tensor:
        """All weights seen: [L, P, H, K].

        Raises:
            ValueError: if the model's layers did not come by here.
        """
        if not self.captured:
            raise ValueError(NO_ATTENTION)
        parts = sum(lanes is not None for lanes in self.lanes) or 1
        layers = [
            self._join(self.captured[first : first + parts], 0.0)
            for first in range(0, len(self.captured), parts)
        ]
        return torch.stack(layers)

    def units(self, unit_N: Tensor) -> Tensor:
        """Unit of the entries that the weights belong to; -1 where there is none: [P, K].

        Args:
            unit_N: unit of every entry of the store.
        """
        if self.plan.joint is not None:
            return unit_N[self.plan.joint.slots].expand(self.num_probing, -1)
        found = []
        for part, lanes in zip(self.plan.parts, self.lanes, strict=True):
            if lanes is not None:
                place_K = torch.arange(part.slots.shape[1], device=unit_N.device)
                in_use = place_K < part.ends[lanes][:, None]
                found.append(torch.where(in_use, unit_N[part.slots[lanes]], -1))
        return self._join(found, -1)

    def _join(self, parts: Sequence[Tensor], fill: float) -> Tensor:
        """Rows of all parts in the order of the inputs, padded at the end."""
        longest = max(part.shape[-1] for part in parts)
        rows = [F.pad(part, (0, longest - part.shape[-1]), value=fill) for part in parts]
        joined = torch.cat(rows) if len(rows) > 1 else rows[0]
        return joined if self.order_P is None else joined[self.order_P]


def unit_attention(
    weights_LBHK: Tensor,
    unit_BK: Tensor,
    heads: tuple[tuple[int, int], ...] | None = None,
    num_units: int | None = None,
) -> Tensor:
    """Share of the source attention on each unit.

    Prompt and target entries are left out, which removes the attention sink at the start of the
    sequence (AlignAtt, Papi et al. 2023); where there is no prompt, unit 1 carries the sink.

    Args:
        weights_LBHK: from `AttentionProbe.weights`.
        unit_BK: unit of each entry; 0 = prompt or target, negative = not in use.
        heads: (layer, head) pairs to average; None = all.
        num_units: U; None looks for the largest unit, at the price of a wait for the device.

    Returns:
        [B, U], rows sum to 1 (0 where nothing was read).
    """
    if heads is None:
        mean_BK = weights_LBHK.mean((0, 2))
    else:
        mean_BK = torch.stack([weights_LBHK[layer, :, head] for layer, head in heads]).mean(0)
    return _share(mean_BK, unit_BK, num_units)


def unit_attention_by_head(weights_LBHK: Tensor, unit_BK: Tensor) -> Tensor:
    """`unit_attention` of every head on its own, for choosing heads.

    Args:
        weights_LBHK: from `AttentionProbe.weights`.
        unit_BK: unit of each entry.

    Returns:
        [L, H, B, U].
    """
    layers, lanes, num_heads, entries = weights_LBHK.shape
    flat = weights_LBHK.transpose(1, 2).reshape(-1, entries)
    repeated = unit_BK.repeat(layers * num_heads, 1)
    return _share(flat, repeated).view(layers, num_heads, lanes, -1)


def _share(weights_BK: Tensor, unit_BK: Tensor, num_units: int | None = None) -> Tensor:
    units = max(int(unit_BK.max()) if num_units is None else num_units, 1)
    sums = weights_BK.new_zeros(weights_BK.shape[0], units + 1)
    sums.scatter_add_(1, unit_BK.clamp(min=0), weights_BK)
    sums = sums[:, 1:]
    return sums / sums.sum(-1, keepdim=True).clamp(min=1e-9)


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float,
    cap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention weights in fp32.

    Args:
        query: [B, H, Q, D].
        key: [B, H_kv, K, D].
        mask: bool [B, 1, Q, K].
        scaling: of the scores.
        cap: soft cap of the scores (Gemma 2).
        sinks: learned sinks [H] (gpt-oss).

    Returns:
        [B, H, Q, K].
    """
    grouped = query.float().unflatten(1, (key.shape[1], -1)).flatten(2, 3)
    scores = (grouped @ key.float().transpose(2, 3)).view(*query.shape[:3], -1) * scaling
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is None:
        return scores.softmax(-1)
    column = sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
