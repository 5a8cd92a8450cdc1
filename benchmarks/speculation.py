"""What proposed tokens save and cost: forwards, tokens and processor seconds of single sessions.

    python benchmarks/speculation.py MODEL SOURCE [COUNT [POLICY...]]

The first COUNT (30) lines of SOURCE are streamed one after another, under every policy without
proposals and then with those of each kind: `lookup`; `half`, a draft model of the first half of the
model's layers; `itself`, the model as its own draft model, which is right where the rule says WRITE
and saves nothing; `known`, what the model writes without proposals, which is right and free. A row
for each: forwards of the model, tokens fed, tokens proposed, the share of these that was kept, and
processor seconds; beside the number how it stands to that without. A target or a delay that differs
from those without proposals ends the run with an error.
"""

import copy
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from proactivellm import StreamingCausalLM, TextSegmenter, Unit, load, parse_policy
from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.forward.draft_model import DraftModel
from proactivellm.forward.speculation import Context, Lookup, Proposer, Speculation
from proactivellm.policy.base import Policy
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling

COUNT = 30
POLICIES = ("offline", "wait-k:3", "entropy:1.0", "local-agreement:2")
TOKENS = 4  # proposed for a forward at most


@dataclass(frozen=True, kw_only=True)
class Known(Speculation, Proposer):
    """Proposes the target that another run has written."""

    tokens: int = TOKENS
    target: Sequence[int] = ()

    def proposer(self, num_lanes: int) -> Proposer:
        return self

    def propose(self, contexts: Sequence[Context]) -> list[list[int]]:
        return [
            list(self.target[len(each.target) : len(each.target) + each.most])
            if list(each.target) == list(self.target[: len(each.target)])
            else []
            for each in contexts
        ]


@dataclass
class Row:
    """Sums over the sources."""

    forwards: int = 0
    tokens: int = 0
    proposed: int = 0
    kept: int = 0
    cpu_s: float = 0.0


def first_half(model: StreamingCausalLM) -> StreamingCausalLM:
    """The model without the second half of its layers."""
    half = copy.deepcopy(model.model)
    decoder = half.get_decoder()
    count = len(decoder.layers) // 2
    decoder.layers = decoder.layers[:count]
    half.config.num_hidden_layers = count
    if getattr(half.config, "layer_types", None):
        half.config.layer_types = half.config.layer_types[:count]
    return StreamingCausalLM(half, model.tokenizer, model.settings)


def stream(
    model: StreamingCausalLM,
    policy: Policy,
    units: Sequence[Unit],
    how: Speculation | None,
    row: Row,
) -> tuple[list[int], list[int]]:
    """Streams one source, adds what it took to a row, and gives its target and delays.

    Raises:
        RuntimeError: the stream ended with an error.
    """
    model.speculate(how)
    engine = Engine(model, policy, Limits(), Sampling())
    lane = engine.open()
    started = time.process_time()
    engine.push(lane, units)
    while engine.step() is not None:
        pass
    row.cpu_s += time.process_time() - started
    row.forwards += engine.forwards
    row.tokens += engine.tokens
    row.proposed += engine.speculator.proposed
    row.kept += engine.speculator.kept
    state = engine.state(lane)
    if state.error is not None:
        raise RuntimeError(state.error)
    return state.target, state.delays


def measure(
    model: StreamingCausalLM,
    kinds: Mapping[str, Speculation | None],
    policy: Policy,
    sources: Sequence[Sequence[Unit]],
) -> dict[str, Row]:
    """Streams every source in every way, one way after the other.

    Raises:
        RuntimeError: proposals changed what was written, or when.
    """
    rows = {kind: Row() for kind in (*kinds, "known")}
    for number, units in enumerate(sources):
        written = stream(model, policy, units, None, Row() if number == 0 else rows["none"])
        if number == 0:  # warm by now
            stream(model, policy, units, None, rows["none"])
        known = Known(target=written[0])
        for kind, how in {**kinds, "known": known}.items():
            if kind != "none" and stream(model, policy, units, how, rows[kind]) != written:
                raise RuntimeError(f"source {number}, {kind}: proposals changed what was written")
    return rows


def main(name: str, source: str, count: int = COUNT, *specs: str) -> None:
    """Prints a Markdown table."""
    torch.set_num_threads(1)
    model = load(name)
    segmenter, table = TextSegmenter(model.tokenizer), find_calibration(model)
    lines = Path(source).read_text(encoding="utf-8").splitlines()[:count]
    sources = [segmenter.segment(line) for line in lines]
    kinds = {
        "none": None,
        "lookup": Lookup(tokens=TOKENS),
        "half": DraftModel(model=first_half(model), tokens=TOKENS),
        "itself": DraftModel(model=model, tokens=TOKENS),
    }
    print("| policy | proposals | forwards | | tokens | | proposed | kept | CPU s | |")
    print("|---|---|" + "---:|" * 8)
    for spec in specs or POLICIES:
        rows = measure(model, kinds, parse_policy(spec, table), sources)
        none = rows["none"]
        for kind, row in rows.items():
            kept = f"{row.kept / row.proposed:.2f}" if row.proposed else ""
            cells = [
                *(f"{row.forwards}", f"{row.forwards / none.forwards:.2f}"),
                *(f"{row.tokens}", f"{row.tokens / none.tokens:.2f}"),
                *(f"{row.proposed}", kept, f"{row.cpu_s:.2f}", f"{row.cpu_s / none.cpu_s:.2f}"),
            ]
            print("|", " | ".join([f"`{spec}`", kind, *cells]), "|", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]), *sys.argv[4:])
