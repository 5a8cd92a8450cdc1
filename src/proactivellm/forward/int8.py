"""Entries rounded to int8, each head of each token for itself.

An entry takes D + 2 bytes for a head, about half of what it takes in fp16. Its scale stands behind
its values in the same buffer, so that whatever moves an entry (snapshots, parking, growth) moves
both, and it depends on nothing but the entry: no neighbour and no later token changes it.
Legend: D = head dimension.
"""

from typing import Literal

import torch
from torch import Tensor

from proactivellm.forward.layer import ArrivalLayer

SCALE = torch.bfloat16  # it has the range of fp32, and values are rounded by what it really is
LARGEST = 127  # symmetric: -128 is not used
Kv = Literal["int8"]  # how a cache may keep entries, besides as they are


def rounded(values: Tensor) -> Tensor:
    """Values [..., D] as int8 [..., D + 2], off by half a step at most.

    A step is 1/127 of the largest magnitude of the row. Where one number of a row is not finite,
    none is afterwards.
    """
    largest = values.abs().amax(-1, keepdim=True).float()
    scale = (largest / LARGEST).clamp(min=torch.finfo(SCALE).tiny).to(SCALE)
    # The scale lost some of its digits, too few for a step more than LARGEST.
    steps = (values / scale.float()).round().to(torch.int8)
    return torch.cat([steps, scale.view(torch.int8)], -1)


def restored(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """The values [..., D] of int8 rows [..., D + 2]."""
    steps, scale = rows.split([rows.shape[-1] - SCALE.itemsize, SCALE.itemsize], -1)
    # In this order, as a product of two types takes longer.
    return steps.to(dtype).mul_(scale.contiguous().view(SCALE).to(dtype))


class Int8Layer(ArrivalLayer):
    """Keys and values of one layer as int8, each [N, H, D + 2]; attention is given numbers."""

    kv = "int8"

    def packed(self, values: Tensor) -> Tensor:
        return rounded(values)

    def unpacked(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        return restored(rows, dtype)
