"""The output layer over a part of a large vocabulary: tokens of targets, and some at random.

A translator into English is taught some 15,000 of the 262,144 tokens of Gemma 3; the output layer
over all of them is half of a training step on a CPU. The tokens that are drawn stand for all that
were left out, so that the sum below the fraction of the softmax is right on average (importance
sampling: Jean et al. 2015). Legend: R = target rows, C = tokens that have logits, V = vocabulary,
D = model width.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from proactivellm.backbone.decoder import Parts
from proactivellm.train.head import is_plain


class Candidates(NamedTuple):
    """The tokens that have logits in one forward."""

    own_C: Tensor  # those that are always there, by id
    drawn_C: Tensor  # columns behind them
    drawn_weight: float  # how many tokens each of these stands for

    def column(self, token_R: Tensor) -> Tensor:
        """Where tokens stand that are always there; what is no token stays as it is."""
        return torch.searchsorted(self.own_C, token_R).where(token_R >= 0, token_R)

    def projection(self, model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
        """What turns hidden states [R, D] into logits [R, C].

        Output layers that are not plain (adapters, quantised weights, weights that a hook puts in
        place) compute all logits: these are right, and as slow as ever.
        """
        parts = Parts(model)
        layer, id_C = parts.output_layer, torch.cat([self.own_C, self.drawn_C])
        stands_for_C = torch.zeros(len(id_C), device=id_C.device)
        stands_for_C[len(self.own_C) :] = math.log(self.drawn_weight)
        if not is_plain(layer):
            return lambda hidden_RD: parts.project(hidden_RD)[:, id_C] + stands_for_C
        weight_CD = layer.weight[id_C]
        bias_C = None if layer.bias is None else layer.bias[id_C]
        return lambda hidden_RD: parts.finish(F.linear(hidden_RD, weight_CD, bias_C)) + stands_for_C


class SampledSoftmax:
    """Draws the tokens that have logits.

    Args:
        taught: tokens of the training targets; they are always there.
        vocabulary: how many tokens there are.
        draws: how many others are drawn for a forward, with replacement.
    """

    def __init__(self, taught: Iterable[int], vocabulary: int, draws: int) -> None:
        self.taught = torch.tensor(sorted(set(taught)), dtype=torch.long)
        self.vocabulary = vocabulary
        self.draws = draws

    @property
    def most(self) -> int:
        """Logits of a row, about."""
        return min(self.vocabulary, len(self.taught) + self.draws)

    def draw(self, label_WR: Tensor) -> Candidates:
        """For rows with these labels, by torch's generator, which a checkpoint keeps."""
        told_R = label_WR[label_WR >= 0]
        own_C = torch.cat([self.taught.to(told_R.device), told_R]).unique()
        drawn_C = torch.randint(self.vocabulary, (self.draws,)).to(told_R.device)
        drawn_C = drawn_C[~torch.isin(drawn_C, own_C)]
        left_out = self.vocabulary - len(own_C)
        return Candidates(own_C, drawn_C, left_out / max(1, len(drawn_C)) or 1.0)
