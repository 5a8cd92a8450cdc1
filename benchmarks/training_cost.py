"""What a streaming training step costs beside plain fine-tuning on the same batch.

Run: python benchmarks/training_cost.py [--out FILE.json] [--repeats N] [--only NAME]. Prints a
Markdown table: FLOPs (forward and backward) and wall-clock of five steps on random tokens.

- plain: one causal forward over [source | target], logits and cross-entropy at target rows only
- plain, all logits: the same, but logits at all rows, as transformers computes them by default
- plain, blocks: as plain, with the attention of packed, which leaves out blocks that no row sees
- packed: L_batch + L_MSLM + lambda KL of this library, [source | target | target] in one forward
- separate: the same objective with one forward over [source | target] per view

FLOPs are counted by torch.utils.flop_counter with attention on the math backend, whose matrix
products it sees; a pair of a query and a key counts if it is computed, masked or not.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from proactivellm.backbone.decoder import Parts
from proactivellm.core.layout import SOURCE, TARGET, grouped
from proactivellm.core.packing import Packed, Sample, Written, pack
from proactivellm.core.schedule import multinomial, offline
from proactivellm.forward.watch import watch_attention
from proactivellm.train.block_attention import PACKED_ATTENTION, register
from proactivellm.train.learner import Learner
from proactivellm.train.objectives.catalogue import make_objectives
from proactivellm.train.recipe import Objectives
from proactivellm.train.rows import row_sums
from proactivellm.train.views import collate, packed_output, view_rows

LAYOUT = grouped()
Step = Callable[[], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model shape and a batch; source and target have the same number of tokens."""

    name: str
    layers: int
    width: int
    inner: int
    vocabulary: int
    tokens: int
    samples: int

    def model(self) -> PreTrainedModel:
        """A random model of this shape."""
        config = AutoConfig.for_model(
            "qwen3",
            num_hidden_layers=self.layers,
            hidden_size=self.width,
            intermediate_size=self.inner,
            vocab_size=self.vocabulary,
            num_attention_heads=self.width // 64,
            num_key_value_heads=self.width // 64,
            head_dim=64,
            tie_word_embeddings=True,
        )
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )
        return model.train()


CASES = (
    # The bundled model; 32 tokens a side is about what its training samples have.
    Case(name="bundled", layers=4, width=256, inner=768, vocabulary=6000, tokens=32, samples=4),
    Case(
        name="bundled-128", layers=4, width=256, inner=768, vocabulary=6000, tokens=128, samples=1
    ),
    Case(name="base", layers=8, width=512, inner=1536, vocabulary=32000, tokens=128, samples=1),
    # The proportions of a small chat model: most parameters in the decoder.
    Case(name="deep", layers=16, width=256, inner=1024, vocabulary=8000, tokens=128, samples=1),
)


def make_batches(case: Case) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """The packed batch, and the same samples as one batch per view."""
    rng = np.random.default_rng(0)
    packed: list[Packed] = []
    views: list[list[Packed]] = [[], []]
    for _ in range(case.samples):
        tokens = rng.integers(0, case.vocabulary, (2, case.tokens)).tolist()
        units = [[token] for token in tokens[0]]
        sample = Sample(
            read={SOURCE: [[], *units]},
            written={TARGET: Written(head=tokens[1][:1], tokens=tokens[1])},
        )
        g = [offline(len(units), case.tokens), multinomial(len(units), case.tokens, rng)]
        packed.append(pack(sample, [{TARGET: schedule} for schedule in g], LAYOUT))
        for view, schedule in zip(views, g, strict=True):
            view.append(pack(sample, [{TARGET: schedule}], LAYOUT))
    return collate(packed), [collate(view) for view in views]


def make_steps(case: Case, model: PreTrainedModel) -> dict[str, Step]:
    """The five steps, each a function that returns the loss."""
    register()
    model.set_attn_implementation(PACKED_ATTENTION)  # skips what no row sees; the rest is SDPA
    whole, (full, partial) = make_batches(case)
    rows = slice(case.tokens, None)  # of a single view: those of the target
    ids, label = full["input_ids"], full["label"]

    windows, project = watch_attention(model).windows, Parts(model).project
    terms = make_objectives({"objective": Objectives()}, model)
    learner = Learner(model, LAYOUT, terms)

    def plain() -> torch.Tensor:
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        logits = project(hidden[:, rows].flatten(0, 1))
        return F.cross_entropy(logits.float(), label[:, rows].flatten())

    def plain_all() -> torch.Tensor:
        logits = model(input_ids=ids, use_cache=False).logits
        return F.cross_entropy(logits.float().flatten(0, 1), label.flatten())

    def plain_blocks() -> torch.Tensor:
        hidden_WRD, label_WR = view_rows(
            packed_output(model, full, LAYOUT, windows).last_hidden_state, full
        )
        return F.cross_entropy(project(hidden_WRD[0]).float(), label_WR[0])

    def packed() -> torch.Tensor:
        return learner(**whole)["loss"]

    def separate() -> torch.Tensor:
        pairs = [
            view_rows(packed_output(model, one, LAYOUT, windows).last_hidden_state, one)
            for one in (full, partial)
        ]
        hidden, label = (torch.cat(each) for each in zip(*pairs, strict=True))
        sums = row_sums(terms, project, (hidden, label), True, len(hidden[0]))
        weights = torch.tensor([weight for term in terms for weight in term.weights])
        return (sums * weights).sum() / len(hidden[0])

    return {
        "plain": plain,
        "plain, all logits": plain_all,
        "plain, blocks": plain_blocks,
        "packed": packed,
        "separate": separate,
    }


def count_flops(step: Step) -> int:
    """FLOPs of forward and backward, attention included."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step().backward()
    return counter.get_total_flops()


def measure(case: Case, repeats: int) -> list[dict[str, Any]]:
    """One row per step: GFLOP, seconds (median of alternating runs), ratios to plain."""
    torch.manual_seed(0)
    model = case.model()
    steps = make_steps(case, model)
    with torch.no_grad():
        gap = abs(float(steps["packed"]() - steps["separate"]()))
    assert gap < 1e-4, f"packed and separate forwards differ by {gap}"
    flops = {name: count_flops(step) for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():  # in turn, so that a busy machine slows all alike
            start = time.perf_counter()
            step().backward()
            seconds[name].append(time.perf_counter() - start)
            model.zero_grad()
    medians = {name: statistics.median(times) for name, times in seconds.items() if times}
    return [
        {
            "case": case.name,
            "step": name,
            "gflop": flops[name] / 1e9,
            "flop_ratio": flops[name] / flops["plain"],
            "flop_ratio_all_logits": flops[name] / flops["plain, all logits"],
            "seconds": medians.get(name),
            "time_ratio": medians[name] / medians["plain"] if medians else None,
        }
        for name in steps
    ]


def as_markdown(case: Case, rows: list[dict[str, Any]]) -> str:
    """The rows of one case as a table."""
    lines = [
        f"\n**{case.name}**: {case.layers} x {case.width}, vocabulary {case.vocabulary}, "
        f"{case.samples} x ({case.tokens} + {case.tokens}) tokens\n",
        "| step | GFLOP | x plain | x plain, all logits | seconds | x plain (time) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        clock = f"{row['seconds']:.3f} | {row['time_ratio']:.2f}" if row["seconds"] else "- | -"
        lines.append(
            f"| {row['step']} | {row['gflop']:.2f} | {row['flop_ratio']:.2f} "
            f"| {row['flop_ratio_all_logits']:.2f} | {clock} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures every case and prints its table."""
    parser = argparse.ArgumentParser(description="Cost of a streaming training step.")
    parser.add_argument("--out", help="write the numbers to this JSON file too")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each step; 0 = none")
    parser.add_argument("--only", choices=[case.name for case in CASES], help="one case alone")
    arguments = parser.parse_args()
    machine = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    print(f"torch {torch.__version__}, CPU ({machine['machine']}), {machine['threads']} thread(s)")
    results = []
    for case in CASES:
        if arguments.only in (None, case.name):
            rows = measure(case, arguments.repeats)
            print(as_markdown(case, rows), flush=True)
            results += rows
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump({**machine, "results": results}, file, indent=2)


if __name__ == "__main__":
    main()
