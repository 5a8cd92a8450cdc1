"""Peak memory and time of the losses over a large vocabulary, in row chunks and with all logits.

Run: python benchmarks/head_memory.py [--vocabulary 262144] [--width 640] [--rows 1024]. Prints a
Markdown table. Every line is a process of its own, on the CPU in fp32: L_batch, L_MSLM and top-k KL
of two views of hidden states, forward and backward; the shape left out is that of Gemma 3 270M with
a batch of 1,024 target tokens. Memory is that of the process at its peak, less what it was with
weights and hidden states in place; gradients of the weights, where they are learnt, are part of it.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor

from proactivellm.train.head import gathering
from proactivellm.train.objectives.distillation import Distillation
from proactivellm.train.objectives.likelihood import Likelihood
from proactivellm.train.recipe import Objectives
from proactivellm.train.rows import row_sums, rows_within

VIEWS = 2
KEYS = ("vocabulary", "width", "rows")
BUDGETS = (None, Objectives().logits_mib, 256)  # None: all logits at once


def loss_of(output: torch.nn.Linear, views: tuple[Tensor, Tensor], chunk: int) -> Tensor:
    """The loss of the default recipe."""
    table = Objectives()
    terms = [Likelihood(table), Distillation(table)]
    in_chunks = output.weight.requires_grad and chunk < views[1].shape[1]
    project = gathering(output) if in_chunks else output
    means = row_sums(terms, project, views, True, chunk) / views[1].shape[1]
    weights = torch.tensor([weight for term in terms for weight in term.weights])
    return (weights * means).sum()


def measure(vocabulary: int, width: int, rows: int, learnt: bool, budget: int | None) -> None:
    """Prints what one way takes: peak in MiB, seconds, and the loss with sums of the gradients."""
    torch.manual_seed(0)
    output = torch.nn.Linear(width, vocabulary, bias=False).requires_grad_(learnt)
    hidden_WRD = torch.randn(VIEWS, rows, width, requires_grad=True)
    label_WR = torch.randint(0, vocabulary, (rows,)).expand(VIEWS, -1)
    chunk = rows if budget is None else rows_within(budget, vocabulary, VIEWS)
    small = torch.nn.Linear(width, 100, bias=False)  # what libraries allocate once
    loss_of(small, (hidden_WRD[:, :8], label_WR[:, :8] % 100), 4).backward()
    hidden_WRD.grad = None
    before, start = peak_kib(), time.process_time()
    loss = loss_of(output, (hidden_WRD, label_WR), chunk)
    loss.backward()
    seconds, after = time.process_time() - start, peak_kib()
    grown = [p.grad for p in (hidden_WRD, output.weight) if p.grad is not None]
    values = [float(loss.detach()), *(float(grad.double().norm()) for grad in grown)]
    print(json.dumps({"mib": (after - before) / 1024, "seconds": seconds, "values": values}))


def peak_kib() -> int:
    """Most memory that this process has had in use, in KiB (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_a_process(values: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one way, by itself in a process."""
    command = [sys.executable, __file__, "--one", json.dumps(values)]
    printed = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(printed)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vocabulary", type=int, default=262_144)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        measure(**json.loads(flags.one))
        return
    shape = {key: getattr(flags, key) for key in KEYS}
    print("| output layer | logits | peak MiB | share | CPU seconds | values differ by |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for learnt in (False, True):
        whole: dict[str, Any] = {}
        for budget in BUDGETS:
            found = in_a_process({**shape, "learnt": learnt, "budget": budget})
            whole = whole or found
            pairs = zip(found["values"], whole["values"], strict=True)
            gap = max(abs(ours - theirs) / theirs for ours, theirs in pairs)
            how = "all at once" if budget is None else f"`logits_mib = {budget}`"
            print(
                f"| {'learnt' if learnt else 'frozen'} | {how} | {found['mib']:,.0f} | "
                f"{found['mib'] / whole['mib']:.2f} | {found['seconds']:.1f} | {gap:.0e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
