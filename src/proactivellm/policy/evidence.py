"""Evidence: what a policy may look at when a lane probes. Values; equal ones are computed once.

A policy names its evidence, the engine computes just that, and `Seen` hands it over.
Legend: P = lanes that want an evidence, B = lanes shown to a policy, V = vocabulary, U = most units
in view of any of them, L = layers, H = heads, N = chosen heads, K = entries of a lane, D = model
width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from proactivellm.forward.lanes import StepOutput
from proactivellm.forward.probe import NO_ATTENTION, head_attention, unit_attention

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM

Heads = tuple[tuple[int, int], ...]


class Rows:
    """What a step computed for the lanes that want an evidence; each part is cut out on demand.

    Args:
        tokens_P: the token that each probing lane would write.
        chosen: the lanes that look, among those of the output; None = all.
        whole: gives `whole_PV` of those that look; None where no source is given as a whole.
        pasts: what each of those that look keeps, by the key of a `Recurrent`.
        spoken: `spoken_P` of those that look.
    """

    def __init__(
        self,
        output: StepOutput,
        tokens_P: Tensor,
        chosen: Tensor | None = None,
        whole: Callable[[], Tensor] | None = None,
        pasts: Sequence[Mapping[str, Tensor]] = (),
        spoken: Sequence[float] = (),
    ) -> None:
        self._output, self._tokens_P, self._chosen = output, tokens_P, chosen
        self._whole, self._pasts, self._spoken = whole, pasts, spoken

    @cached_property
    def logits_PV(self) -> Tensor:
        """Logits; -inf for what ends a target whose source is open."""
        return self._take(self._output.logits_PV)

    @cached_property
    def probs_PV(self) -> Tensor:
        """The next-token distribution."""
        return self.logits_PV.softmax(-1)

    @cached_property
    def whole_PV(self) -> Tensor:
        """Logits as if the whole source had been read, ends included; for analysis only.

        ValueError where the source is not given as a whole.
        """
        if self._whole is None:
            raise ValueError("the source is not given as a whole")
        return self._whole()

    @property
    def read_P(self) -> Tensor:
        """Logit of the control token `read_token`, which the others lack."""
        assert self._output.read_P is not None
        return self._take(self._output.read_P)

    @property
    def tokens_P(self) -> Tensor:
        """The token that would be written, int64."""
        return self._take(self._tokens_P)

    @property
    def spoken_P(self) -> Tensor:
        """Words of the source that are over (`Unit.spoken`), float64; 0 where nothing counts."""
        return torch.tensor(self._spoken, dtype=torch.float64, device=self._tokens_P.device)

    @property
    def hidden_PD(self) -> Tensor:
        """Last hidden state of the last token, after the final norm."""
        return self._take(self._output.hidden_PD)

    def unit_attention(self, heads: Heads | None) -> Tensor:
        """Share of the source attention on each unit in view, [P, U]."""
        return unit_attention(*self._weights(), heads, self._output.num_units)

    def head_attention(self, heads: Heads | None) -> Tensor:
        """Attention of each head on each unit in view, [P, N, U]; rows sum to at most 1."""
        return head_attention(*self._weights(), heads, self._output.num_units)

    def pasts(self, evidence: Recurrent) -> list[Tensor | None]:
        """Of each lane, the value for the token written last, [..., units then in view]."""
        return [past.get(evidence.key) for past in self._pasts]

    def _weights(self) -> tuple[Tensor, Tensor]:
        output, chosen = self._output, self._chosen
        assert output.weights_LPHK is not None and output.unit_PK is not None
        weights = output.weights_LPHK if chosen is None else output.weights_LPHK[:, chosen]
        return weights, self._take(output.unit_PK)

    def _take(self, values_P: Tensor) -> Tensor:
        return values_P if self._chosen is None else values_P[self._chosen]


@dataclass(frozen=True)
class Evidence(ABC):
    """One thing to look at; a frozen value, so that two policies that want the same share it."""

    attention: ClassVar[bool] = False
    """Whether the forward has to keep the attention of the tokens that probe."""

    @abstractmethod
    def of(self, rows: Rows) -> Tensor:
        """Compute it: [P, ...], a row for each lane."""

    def check(self, model: StreamingCausalLM) -> None:  # noqa: B027
        """Raise ValueError where `model` cannot show it; asked before a stream is opened."""


class Recurrent(Evidence):
    """Evidence made of the probe and of its own value for the token written before.

    The lane keeps that value, of what it wrote and not of what it only considered. The last axis is
    that of the units in view: what leaves a window leaves it too.
    """

    @property
    def key(self) -> str:
        """What a lane keeps it under."""
        return repr(self)


@dataclass(frozen=True)
class Entropy(Evidence):
    """Entropy of the next-token distribution, nats [P]; `top` > 0: of its `top` tokens only."""

    top: int = 0

    def of(self, rows: Rows) -> Tensor:
        return entropy(rows.probs_PV, self.top)


@dataclass(frozen=True)
class Confidence(Evidence):
    """Probability of the most probable next token, [P]."""

    def of(self, rows: Rows) -> Tensor:
        return rows.probs_PV.max(-1).values


@dataclass(frozen=True)
class Control(Evidence):
    """Probability of the control token, beside that of all that may be written, [P]."""

    def of(self, rows: Rows) -> Tensor:
        return (rows.read_P - rows.logits_PV.logsumexp(-1)).sigmoid()

    def check(self, model: StreamingCausalLM) -> None:
        if model.read_id is None:
            raise ValueError(
                "the model has no control token: train it with one, by `control_weight` in the "
                "table [objective] of a recipe"
            )


@dataclass(frozen=True)
class Attention(Evidence):
    """Share of the source attention on each unit in view, in reading order, [P, U].

    Rows sum to 1 (prompt and sinks removed) and are 0 beyond the units read. It is averaged over
    (layer, head) pairs; None = all.
    """

    attention: ClassVar[bool] = True

    heads: Heads | None = None

    def of(self, rows: Rows) -> Tensor:
        return rows.unit_attention(self.heads)

    def check(self, model: StreamingCausalLM) -> None:
        if not model.shows_attention:
            raise ValueError(NO_ATTENTION)
        check_heads_exist(self.heads, *model.num_heads)


@dataclass(frozen=True)
class Hidden(Evidence):
    """Hidden state of the last token, [P, D]: what the output layer is given (layer -1)."""

    layer: int = -1

    def of(self, rows: Rows) -> Tensor:
        return rows.hidden_PD

    def check(self, model: StreamingCausalLM) -> None:
        if self.layer != -1:
            raise ValueError(
                f"there are no hidden states of layer {self.layer}: a step keeps those of the last "
                "layer only, layer=-1"
            )


@dataclass(frozen=True)
class Candidate(Evidence):
    """The token that a WRITE would write, int64 [P]."""

    def of(self, rows: Rows) -> Tensor:
        return rows.tokens_P


@dataclass(frozen=True)
class Acceptance(Evidence):
    """Probability of the candidate after the whole source, over that of the best token, [P].

    What was written is the same; only oracles look at it.
    """

    def of(self, rows: Rows) -> Tensor:
        logits_PV = rows.whole_PV
        tokens_P1 = rows.tokens_P[:, None]
        return (logits_PV.gather(1, tokens_P1)[:, 0] - logits_PV.amax(-1)).exp()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a policy is shown of lanes that its bounds leave open; `seen[evidence]` is a tensor."""

    units_read_B: Tensor  # source units read so far, int64
    units_in_view_B: Tensor  # those that the model still sees, int64
    # Target words (tokens, when decisions fall at token boundaries) before the one that the
    # candidate belongs to, int64.
    words_written_B: Tensor
    evidence: Mapping[Evidence, Tensor]

    def __getitem__(self, wanted: Evidence) -> Tensor:
        """Return an evidence, a row for each lane; ValueError where it was not declared."""
        if wanted not in self.evidence:
            raise ValueError(f"{wanted} was not computed: the policy has to name it in `evidence`")
        return self.evidence[wanted]


def entropy(probs_PV: Tensor, top: int = 0) -> Tensor:
    """Entropy of distributions, nats [P]; `top` > 0: of so many tokens, renormalised."""
    if top and top < probs_PV.shape[-1]:
        probs_PV = probs_PV.topk(top, dim=-1).values
        probs_PV = probs_PV / probs_PV.sum(-1, keepdim=True)
    # Of what has no probability the logarithm, and with it the gradient, would not be finite.
    above_PV = probs_PV.clamp(min=torch.finfo(probs_PV.dtype).tiny)
    return -torch.special.xlogy(probs_PV, above_PV).sum(-1)


def check_heads_exist(heads: Heads | None, layers: int, per_layer: int) -> None:
    """Raise ValueError naming the first of `heads` that a model of that size does not have."""
    for layer, head in heads or ():
        if layer >= layers or head >= per_layer:
            raise ValueError(
                f"there is no head {layer}.{head}: the model has {layers} layers of "
                f"{per_layer} heads (0.0 to {layers - 1}.{per_layer - 1})"
            )
