"""The micro-batches of one update, on all processes, as one batch: what their sums are divided by.

A mean of means would give a token of a short micro-batch more weight than one of a long one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Batch = dict[str, Tensor]


def share_counts(
    batches: Sequence[Batch],
    count: Callable[[Batch], dict[str, Tensor]],
    add_up: Callable[[Tensor], Tensor],
    num_processes: int,
) -> list[Batch]:
    """Give every micro-batch of an update the counts of the whole update, as `count_NAME`, scalars.

    Gradients and recorded losses are averaged over processes, so a process divides by its share.
    `count` tells what the losses of a batch are means over, by objective; `add_up` sums a tensor
    over processes.
    """
    counts = [count(batch) for batch in batches]
    total = add_up(torch.stack([torch.stack(list(each.values())) for each in counts]).sum(0))
    shares = (total.clamp(min=1).float() / num_processes).unbind()
    named = {f"count_{name}": share for name, share in zip(counts[0], shares, strict=True)}
    return [{**batch, **named} for batch in batches]
