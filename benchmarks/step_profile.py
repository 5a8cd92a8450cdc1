"""Where a step's time goes: the engine under load, its operators sorted into a few kinds.

Run: python benchmarks/step_profile.py [--sessions 1 32] [--policy wait-k:3] [--threads 1]
Sessions are kept busy with the bundled sample, one translation after the other. Whole steps are
timed without the profiler (CPU time); the shares are those under it. "python" is what no operator
accounts for: the interpreter and the dispatcher. Needs an idle machine.
"""

import argparse
import time
from collections.abc import Callable
from itertools import cycle

import torch
from torch.profiler import ProfilerActivity, profile

from proactivellm import Engine, StreamingCausalLM, TextSegmenter, load, parse_policy
from proactivellm.backbone.bundled import DEFAULT_MODEL, bundled_models
from proactivellm.session.events import End, Write
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling

STEPS = 120
WARM_UP = 20
# First match counts.
KINDS = {
    "linear layers": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("scaled_dot_product",),
    "entries: write and gather": ("index_select", "index_copy", "index_put", "aten::index"),
    "norms, rotary, activation": (
        *("aten::mul", "aten::add", "aten::pow", "aten::mean", "aten::rsqrt", "aten::silu"),
        *("aten::neg", "aten::cat", "aten::sum", "aten::div"),
    ),
    "other operators": ("aten::",),
}


def main() -> None:
    """Profiles and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--policy", default="wait-k:3")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load(DEFAULT_MODEL)
    rows = {n: profile_steps(model, options.policy, n) for n in options.sessions}
    print("| ms per step | " + " | ".join(f"{n} sessions" for n in rows) + " |")
    print("|---" * (1 + len(rows)) + "|")
    for kind in [*KINDS, "python", "whole step", "tokens fed", "tokens written"]:
        print(f"| {kind} | " + " | ".join(f"{row[kind]:.2f}" for row in rows.values()) + " |")


def profile_steps(model: StreamingCausalLM, policy: str, sessions: int) -> dict[str, float]:
    """Milliseconds of CPU time per step, by kind, with so many sessions busy at once."""
    engine, step = busy_engine(model, policy, sessions)
    for _ in range(WARM_UP):
        step()
    started, fed = time.process_time(), engine.tokens
    written = sum(step() for _ in range(STEPS))
    whole, fed = time.process_time() - started, engine.tokens - fed
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        profiled = time.perf_counter()
        for _ in range(STEPS):
            step()
        profiled = time.perf_counter() - profiled
    spent = dict.fromkeys(KINDS, 0.0)
    for event in seen.key_averages():
        kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)), None)
        if kind is not None:
            spent[kind] += event.self_cpu_time_total / 1e6
    spent["python"] = profiled - sum(spent.values())
    spent = {kind: seconds * whole / profiled for kind, seconds in spent.items()}
    spent["whole step"] = whole
    per_step = {kind: 1000 * seconds / STEPS for kind, seconds in spent.items()}
    return {**per_step, "tokens fed": fed / STEPS, "tokens written": written / STEPS}


def busy_engine(
    model: StreamingCausalLM, policy: str, sessions: int
) -> tuple[Engine, Callable[[], int]]:
    """An engine whose lanes are always busy, and a function that makes one step of it.

    The function returns how many tokens were written.
    """
    sample = bundled_models()[DEFAULT_MODEL].parent / "tatoeba-sample" / "test.de"
    segmenter = TextSegmenter(model.tokenizer)
    lines = sample.read_text(encoding="utf-8").splitlines()
    sources = cycle([segmenter.segment(line) for line in lines])
    engine = Engine(model, parse_policy(policy), Limits(streams=sessions), Sampling())

    def step() -> int:
        while engine.has_room:
            engine.push(engine.open(), next(sources))
        events = engine.step() or []
        for event in events:
            if isinstance(event, End):
                engine.release(event.lane)
        return sum(isinstance(event, Write) and event.token_id is not None for event in events)

    return engine, step


if __name__ == "__main__":
    main()
