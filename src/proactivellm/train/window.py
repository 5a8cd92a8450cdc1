"""The micro-batches of one update, on all processes, as one batch: what their sums are divided by.

A mean of means would give a token of a short micro-batch more weight than one of a long one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from proactivellm.model.packing import IGNORE


def count_items(batch: dict[str, Tensor]) -> Tensor:
    """What the losses of a batch are means over.

    Args:
        batch: from `collate`.

    Returns:
        int64 [2]: target rows of one view, bytes of the transcripts.
    """
    rows = ((batch["label"] != IGNORE) & (batch["view"] == 0)).sum()
    spoken = batch.get("transcript")
    return torch.stack([rows, rows.new_zeros(()) if spoken is None else (spoken != IGNORE).sum()])


def share_counts(
    batches: Sequence[dict[str, Tensor]], add_up: Callable[[Tensor], Tensor], num_processes: int
) -> list[dict[str, Tensor]]:
    """Give every micro-batch of an update the counts of the whole update.

    Gradients and recorded losses are averaged over processes, so a process divides by its share.

    Args:
        batches: of this process, from `collate`.
        add_up: sums a tensor over processes.
        num_processes: how many those are.

    Returns:
        The batches with `num_rows` and `num_bytes`, scalars.
    """
    counts = add_up(torch.stack([count_items(batch) for batch in batches]).sum(0))
    rows, spoken = (counts.clamp(min=1).float() / num_processes).unbind()
    return [{**batch, "num_rows": rows, "num_bytes": spoken} for batch in batches]
