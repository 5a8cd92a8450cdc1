"""A decision head that is being trained: another one, and a change of it.

Legend: N = decisions, F = inputs of the head.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from proactivellm.policy.head import Head


class TunedHead(nn.Module):
    """A head plus a change that is linear in standardised inputs, 0 at first.

    The mean and the spread are those of `inputs_NF`, so that one learning rate fits all inputs.
    """

    mean_F: Tensor
    spread_F: Tensor
    weight_F: Tensor

    def __init__(self, head: Head, inputs_NF: Tensor) -> None:
        super().__init__()
        self.start = head
        self.register_buffer("weight_F", torch.cat([head.hidden_D, head.scalar_S]))
        self.register_buffer("mean_F", inputs_NF.mean(0))
        self.register_buffer("spread_F", inputs_NF.std(0).clamp(min=1e-6))
        self.change_F = nn.Parameter(torch.zeros_like(self.weight_F))
        self.bias = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, inputs_NF: Tensor) -> Tensor:
        """Logits [N], float64."""
        change_N = ((inputs_NF - self.mean_F) / self.spread_F) @ self.change_F + self.bias
        return inputs_NF @ self.weight_F + self.start.bias + change_N

    def head(self) -> Head:
        """What it is now, as a head like any other, rounded as a file of it would be."""
        slope_F = (self.change_F / self.spread_F).detach()
        weight_F = (self.weight_F + slope_F).float().double()
        bias = self.start.bias + float(self.bias.detach() - (slope_F * self.mean_F).sum())
        cut = len(self.start.hidden_D)
        return replace(
            self.start,
            hidden_D=weight_F[:cut],
            scalar_S=weight_F[cut:],
            bias=float(torch.tensor(bias, dtype=torch.float32)),
        )
