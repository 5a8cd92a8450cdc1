"""VisiPruner: what text does not look at is not looked at (arXiv 2510.17205), without training.

In the shallow layers text sees nothing of the picture but one sink, in the first of them. In the
middle, a layer in which a token of the picture turns the output of the last token of text is a
filter: later layers show what contributed enough. After it, layers that would say the same without
the picture are counted, and from the second on nothing of it is seen. The rules are applied anew
for every token that asks for a distribution, as what is seen grows while a stream writes.

What is seen keeps its entries in all layers, as a later token may look at what this one does not:
what is spared is attention, not the layers of the picture itself.
Legend: B = lanes, H = heads, G = key/value heads, Q = new tokens, K = entries, D = head dimension.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from proactivellm.forward.attention import attend
from proactivellm.forward.probe import attention_weights
from proactivellm.forward.seen import Asked, Control, Seen, StepControl, whole_mask

TWICE = 2  # layers that need no picture, until it is left out


@dataclass(frozen=True)
class VisiPruner(Control):
    """The thresholds, which are those published for LLaVA-1.5-7B and its 32 layers.

    Attributes:
        shallow: layers in which text does not see.
        filter: a cosine of the output with and without a token below it makes a layer a filter.
        norm: of a contribution, above which a filter keeps a token. It depends on how large the
            values of a model are.
        exit: a cosine of the output with and without all of the picture from which on it is not
            needed; above 1: never.
        among: whether tokens of the picture see each other.
    """

    name: ClassVar[str] = "visipruner"
    trains: ClassVar[bool] = False
    shallow: int = 6
    filter: float = 0.995
    norm: float = 0.2
    exit: float = 0.999
    among: int = 0

    def __post_init__(self) -> None:
        cosines = (self.filter, self.norm, self.exit)
        if self.shallow < 0 or self.among not in (0, 1) or any(each != each for each in cosines):
            raise ValueError(f"{self}: shallow from 0 on, among 0 or 1, and numbers for the others")

    def __str__(self) -> str:
        return f"{self.name}:" + ",".join(f"{key}={value:g}" for key, value in asdict(self).items())

    def attach(self, model: PreTrainedModel) -> None:
        """Nothing is to be prepared."""
        num_layers = model.config.get_text_config().num_hidden_layers
        if self.shallow >= num_layers:
            raise ValueError(f"{self}: the model has {num_layers} layers: give fewer as shallow")

    def detach(self) -> None:
        """Nothing was prepared."""

    def begin(self, parts: Sequence[Seen], rows: Tensor) -> "Pruning":
        """Of a forward: all is seen at first."""
        return Pruning(parts, self)


class Contributions(NamedTuple):
    """What each entry adds to the output of a token, before the output projection."""

    norm_BK: Tensor
    along_BK: Tensor  # inner product with the output
    output_BX: Tensor  # all heads side by side, [B, H * D]
    seen_BX: Tensor  # the sum over what is seen


class Pruning(StepControl):
    """The rules in one forward.

    Attributes:
        shown: by layer and part, how many tokens of the picture the last token saw, [B].
    """

    def __init__(self, parts: Sequence[Seen], rules: VisiPruner) -> None:
        super().__init__(parts)
        self.rules = rules
        self.shown: dict[tuple[int, int], Tensor] = {}
        self._hidden = [torch.zeros_like(seen.entries_BK) for seen in parts]
        self._filtered = [torch.zeros_like(seen.last_B, dtype=torch.bool) for seen in parts]
        self._unneeded = [torch.zeros_like(seen.last_B) for seen in parts]

    def mask(self, layer: int, part: int, mask: Tensor | None) -> Tensor | None:
        """What text still sees; what is seen sees itself and the text, unless `among`."""
        seen = self.parts[part]
        mask = whole_mask(mask, seen)
        if not self.rules.among:
            place_K = torch.arange(mask.shape[-1], device=mask.device)
            others = seen.entries_BK[:, None, :] & (seen.own_BQ[:, :, None] != place_K)
            mask = mask & ~(seen.rows_BQ[:, :, None] & others)[:, None]
        if 0 < layer < self.rules.shallow:
            return mask & ~seen.text_QK
        if layer >= self.rules.shallow:
            hidden_BK = self._hidden[part][:, None, None, :]
            return mask & ~(seen.text_QK & hidden_BK)
        return mask

    def attend(self, layer: int, part: int, asked: Asked) -> Tensor:
        """Attention of the layer, and what follows from it for later ones."""
        assert asked.mask is not None
        seen = self.parts[part]
        last_BK = self._seen_by_last(seen, asked.mask)
        self.shown[layer, part] = last_BK.sum(-1)
        if layer < self.rules.shallow:
            if layer:
                return attend(*asked)
            return _into_sink(asked, seen)
        if bool((seen.last_B >= 0).any()):
            weights_BHK = self._last_weights(seen, asked)
            self._decide(part, _contributions(weights_BHK, asked.value, last_BK), last_BK)
        return attend(*asked)

    def _seen_by_last(self, seen: Seen, mask: Tensor) -> Tensor:
        """Entries of the picture that the last token of each lane sees: bool [B, K]."""
        mask_BQK = mask.expand(len(seen.rows_BQ), -1, -1, -1)[:, 0]
        lane_B = torch.arange(len(mask_BQK), device=mask.device)
        last_BK = mask_BQK[lane_B, seen.last_B.clamp(min=0)]
        return last_BK & seen.entries_BK & (seen.last_B >= 0)[:, None]

    def _last_weights(self, seen: Seen, asked: Asked) -> Tensor:
        """Attention of the last token of each lane, [B, H, K]."""
        query, key, _, mask, scores = asked
        assert mask is not None
        lane_B = torch.arange(len(query), device=query.device)
        row_B = seen.last_B.clamp(min=0)
        query_BHD = query[lane_B, :, row_B]
        mask_BQK = mask.expand(len(query), -1, -1, -1)[:, 0]
        mask_B11K = mask_BQK[lane_B, row_B][:, None, None, :]
        return attention_weights(query_BHD[:, :, None], key, mask_B11K, **scores)[:, :, 0]

    def _decide(self, part: int, added: Contributions, last_BK: Tensor) -> None:
        rules, asks_B = self.rules, self.parts[part].last_B >= 0
        size_B = added.output_BX.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        # |O - c|^2 and the cosine of O - c with O, of each c.
        rest_BK = size_B**2 - 2 * added.along_BK + added.norm_BK**2
        cosine_BK = (size_B**2 - added.along_BK) / (size_B * rest_BK.clamp(min=1e-24).sqrt())
        turns_B = (last_BK & (cosine_BK < rules.filter)).any(-1) & asks_B
        without_BX = added.output_BX - added.seen_BX
        whole_B = torch.cosine_similarity(added.output_BX, without_BX, dim=-1)
        is_late_B = self._filtered[part] & asks_B
        self._unneeded[part] += is_late_B & (whole_B >= rules.exit)
        self._filtered[part] |= turns_B
        small_BK = last_BK & (added.norm_BK <= rules.norm) & turns_B[:, None]
        gone_BK = self.parts[part].entries_BK & (self._unneeded[part] >= TWICE)[:, None]
        self._hidden[part] = self._hidden[part] | small_BK | gone_BK


def _contributions(weights_BHK: Tensor, value: Tensor, seen_BK: Tensor) -> Contributions:
    """Of each entry to the output of one token; their sum is the output.

    Args:
        weights_BHK: of the token.
        value: [B, G, K, D].
    """
    lanes, heads, entries = weights_BHK.shape
    grouped_BGSK = weights_BHK.view(lanes, value.shape[1], -1, entries)
    value = value.float()
    output_BGSD = grouped_BGSK @ value
    along_BGSK = grouped_BGSK * (output_BGSD @ value.transpose(2, 3))
    square_BGK = value.square().sum(-1)
    norm_BK = (grouped_BGSK.square() * square_BGK[:, :, None]).sum((1, 2)).sqrt()
    seen_BGSD = (grouped_BGSK * seen_BK[:, None, None]) @ value
    return Contributions(
        norm_BK, along_BGSK.sum((1, 2)), output_BGSD.flatten(1), seen_BGSD.flatten(1)
    )


def _into_sink(asked: Asked, seen: Seen) -> Tensor:
    """Attention in which all that text spends on the picture falls on one token: [B, Q, H, D].

    It is the token on which text spends most.
    """
    query, key, value, mask, scores = asked
    weights_BHQK = attention_weights(query, key, mask, **scores)
    spent_BHQK = weights_BHQK * seen.text_QK
    sink_B = spent_BHQK.sum((1, 2)).argmax(-1)
    place_K = torch.arange(key.shape[2], device=key.device)
    is_sink_BK = (place_K == sink_B[:, None])[:, None, None]
    merged = weights_BHQK - spent_BHQK + spent_BHQK.sum(-1, keepdim=True) * is_sink_BK
    values = value.float().repeat_interleave(query.shape[1] // value.shape[1], 1)
    return (merged @ values).to(value.dtype).transpose(1, 2)
