"""From encoder outputs to embeddings of a language model: stack neighbours, project.

Legend: B = recordings, P = encoder outputs, E = embeddings, D = encoder width, H = LM width.
"""

import torch.nn.functional as nn_f
from torch import Tensor, nn


class StackProjector(nn.Module):
    """Stacks `stack` neighbouring outputs and maps them with a two-layer perceptron."""

    def __init__(self, width: int, stack: int, hidden: int, lm_width: int) -> None:
        super().__init__()
        self.stack = stack
        self.inner = nn.Linear(stack * width, hidden)
        self.outer = nn.Linear(hidden, lm_width)

    def forward(self, outputs_BPD: Tensor) -> Tensor:
        """Projects P outputs, a multiple of the stack, to [B, E, H], E = P / stack."""
        stacked = outputs_BPD.unflatten(1, (-1, self.stack)).flatten(2)
        return self.outer(nn_f.gelu(self.inner(stacked)))
