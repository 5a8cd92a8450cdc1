"""The attention of the tokens that decide, captured while the forward runs.

Legend: B = lanes, P = rows that probe, H = heads, L = layers, Q = new tokens per lane, T = new
tokens of all lanes, K = entries, U = units, N = chosen heads, D = head dimension.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from proactivellm.core.layout import TARGET
from proactivellm.forward.lanes import LaneInput, NewTokens, Piece
from proactivellm.forward.plan import StepPlan

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM

NO_ATTENTION = (
    "this model family does its attention by itself, so that it cannot be looked at: "
    "take a policy that needs no attention, such as entropy"
)


class Chosen(NamedTuple):
    """What probes in a part of a plan."""

    lanes: Tensor | slice  # of the part, one for each row; a slice = all, each once
    rows: Tensor | None  # of each among the new tokens of the part; None = the last one of all


class AttentionProbe:
    """Collects the attention weights of some tokens of some lanes, from every layer."""

    def __init__(
        self,
        plan: StepPlan,
        chosen: Sequence[Chosen | None],
        num_probing: int,
        rows_P: Tensor | None = None,
        order_P: Tensor | None = None,
    ) -> None:
        self.plan = plan
        self.chosen = chosen  # what probes, by part; None where nothing does
        self.num_probing = num_probing
        self.rows_P = rows_P  # packed index of the tokens; only a joint plan asks for it
        # Puts what the parts give in the order of the step's inputs; None = it is so.
        self.order_P = order_P
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
        """Keep the weights of the probing tokens of a part; tensors as `attention_weights`."""
        chosen = self.chosen[part]
        if chosen is None:
            return
        lanes, rows = chosen
        key = key[lanes]
        if rows is None:
            query = query[lanes][:, :, -1:]
            mask = None if mask is None else mask[lanes][:, :, -1:]
        else:
            query = query[lanes, :, rows][:, :, None]
            mask = None if mask is None else mask[lanes, :, rows][:, :, None]
        weights = attention_weights(query, key, mask, scaling, **extras)
        self.captured.append(weights[:, :, 0])

    def capture_joint(
        self, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, **extras: Any
    ) -> None:
        """Keep the weights of the probing tokens of all lanes, packed in one row (B = 1)."""
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
        parts = sum(chosen is not None for chosen in self.chosen) or 1
        layers = [
            self._join(self.captured[first : first + parts], 0.0)
            for first in range(0, len(self.captured), parts)
        ]
        return torch.stack(layers)

    def units(self, unit_N: Tensor) -> Tensor:
        """Unit of the entries that the weights belong to, -1 where there is none: [P, K]."""
        if self.plan.joint is not None:
            return unit_N[self.plan.joint.slots].expand(self.num_probing, -1)
        found = []
        for part, chosen in zip(self.plan.parts, self.chosen, strict=True):
            if chosen is not None:
                lanes = chosen.lanes
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


def can_be_probed(model: "StreamingCausalLM") -> bool:
    """Whether a model shows any attention, tried out."""
    step = LaneInput(lane=0, pieces=[Piece(TARGET, 0, model.prompt.target_head)], probe=-1)
    try:
        model.step(model.new_cache(), [step], attention=True)
    except ValueError:
        return False
    return True


def probe_step(plan: StepPlan, new: NewTokens) -> AttentionProbe:
    """A probe of the tokens of a step that ask for a distribution."""
    device = plan.slots_T.device
    rows_of: dict[int, list[int]] = {}
    for i, row in zip(new.probing, new.within, strict=True):
        rows_of.setdefault(i, []).append(row)
    order: list[int] = []
    chosen: list[Chosen | None] = []
    for part in plan.parts:
        inputs = part.inputs.tolist()
        found = [b for b, i in enumerate(inputs) for _ in rows_of.get(i, ())]
        order += [inputs[b] for b in found]
        rows = [row for i in inputs for row in rows_of.get(i, ())]
        lanes: Tensor | slice = slice(None)
        # A lane's last token is repeated to the end of the part.
        at_end = all(r == new.counts[inputs[b]] - 1 for b, r in zip(found, rows, strict=True))
        if not at_end or len(found) < len(inputs):
            lanes = torch.tensor(found, device=device)
        rows_B = None if at_end else torch.tensor(rows, device=device)
        chosen.append(Chosen(lanes, rows_B) if found else None)
    in_order = order == sorted(order)
    return AttentionProbe(
        plan,
        chosen,
        len(new.probing),
        rows_P=None if plan.joint is None else torch.tensor(new.rows, device=device),
        order_P=None if in_order else torch.tensor(order, device=device).argsort(stable=True),
    )


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


def head_attention(
    weights_LBHK: Tensor,
    unit_BK: Tensor,
    heads: tuple[tuple[int, int], ...] | None = None,
    num_units: int | None = None,
) -> Tensor:
    """Attention of each head on each unit, [B, N, U] for N heads; arguments as `unit_attention`.

    What a row lacks to 1 is on prompt, target and sinks.
    """
    if heads is None:
        weights_BNK = weights_LBHK.transpose(0, 1).flatten(1, 2)
    else:
        weights_BNK = torch.stack([weights_LBHK[layer, :, head] for layer, head in heads], dim=1)
    num_heads = weights_BNK.shape[1]
    sums = _sums(weights_BNK.flatten(0, 1), unit_BK.repeat_interleave(num_heads, 0), num_units)
    return sums.unflatten(0, (-1, num_heads))


def unit_attention_by_head(weights_LBHK: Tensor, unit_BK: Tensor) -> Tensor:
    """`unit_attention` of every head on its own, for choosing heads: [L, H, B, U]."""
    layers, lanes, num_heads, entries = weights_LBHK.shape
    flat = weights_LBHK.transpose(1, 2).reshape(-1, entries)
    repeated = unit_BK.repeat(layers * num_heads, 1)
    return _share(flat, repeated).view(layers, num_heads, lanes, -1)


def _share(weights_BK: Tensor, unit_BK: Tensor, num_units: int | None = None) -> Tensor:
    sums = _sums(weights_BK, unit_BK, num_units)
    return sums / sums.sum(-1, keepdim=True).clamp(min=1e-9)


def _sums(weights_BK: Tensor, unit_BK: Tensor, num_units: int | None = None) -> Tensor:
    units = max(int(unit_BK.max()) if num_units is None else num_units, 1)
    sums = weights_BK.new_zeros(weights_BK.shape[0], units + 1)
    sums.scatter_add_(1, unit_BK.clamp(min=0), weights_BK)
    return sums[:, 1:]


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float,
    cap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention weights [B, H, Q, K] in fp32.

    Args:
        query: [B, H, Q, D].
        key: [B, H_kv, K, D].
        mask: bool [B, 1, Q, K].
        cap: soft cap of the scores (Gemma 2).
        sinks: learned sinks [H] (gpt-oss).
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
