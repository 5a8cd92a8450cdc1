"""Where a step's time goes: operators by kind, Python calls, and the floor that transformers sets.

Run: python benchmarks/step_profile.py [--sessions 1 16] [--policy wait-k:3] [--shape shape:6x256]
Three tables. Operators: sessions kept busy with the bundled sample; whole steps are timed without
the profiler (CPU time), the shares are those under it; "python" is what no operator accounts for.
Calls: of Python, counted by cProfile. Floor: by turns in one process, this library, transformers'
`generate`, its decoder alone on the same tokens per forward, and matrix products alone.
"""

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from statistics import median

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from transformers import DynamicCache

from proactivellm import Engine, StreamingCausalLM, TextSegmenter, Unit, load, parse_policy
from proactivellm.backbone.bundled import DEFAULT_MODEL, bundled_models
from proactivellm.backbone.decoder import CACHE_ARGUMENTS, cache_argument, decoder_of
from proactivellm.bench.alone import write_alone
from proactivellm.bench.baselines import offline_generate
from proactivellm.bench.shapes import find_shape, random_model
from proactivellm.bench.workload import Endless, drawn_work
from proactivellm.forward.attention import ATTENTION
from proactivellm.policy.base import Policy
from proactivellm.session.events import End, Write
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling

STEPS = 120
WARM_UP = 20
NUM_UNITS = 40  # of the streams whose calls are counted, one token each
NUM_TOKENS = 60  # read and written by the streams that are compared
LAG = 5  # their wait-k
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
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--policy", default="wait-k:3")
    parser.add_argument("--shape", default="shape:6x256")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, policy = load(DEFAULT_MODEL), parse_policy(options.policy)
    rows = {n: profile_steps(model, policy, n) for n in options.sessions}
    print("| ms per step | " + " | ".join(f"{n} sessions" for n in rows) + " |")
    print("|---" * (1 + len(rows)) + "|")
    for kind in [*KINDS, "python", "whole step", "tokens fed", "tokens written"]:
        print(f"| {kind} | " + " | ".join(f"{row[kind]:.2f}" for row in rows.values()) + " |")
    print("\n| Python calls per forward | |\n| --- | ---: |")
    for n in options.sessions:
        print(f"| {n} streams | {count_calls(lambda n=n: whole_streams(model, policy, n)):.0f} |")
    sizes = [1 + number % 2 for number in range(NUM_UNITS)]
    print(f"| the decoder alone | {count_calls(lambda: decode_alone(model, sizes)):.0f} |")
    shape = find_shape(options.shape)
    assert shape is not None
    for name, other in ((DEFAULT_MODEL, Endless(model)), (options.shape, None)):
        print(f"\n| {name}, CPU time | ms per forward, median (least) | tokens per s |")
        print("| --- | ---: | ---: |")
        compare(other or Endless(random_model(shape)), options.repeats)


def profile_steps(model: StreamingCausalLM, policy: Policy, sessions: int) -> dict[str, float]:
    """Milliseconds of CPU time per step, by kind, of so many sessions that are kept busy."""
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
    model: StreamingCausalLM, policy: Policy, sessions: int
) -> tuple[Engine, Callable[[], int]]:
    """An engine whose lanes are always busy; a function that makes a step and counts its writes."""
    sample = bundled_models()[DEFAULT_MODEL].parent / "tatoeba-sample" / "test.de"
    segmenter = TextSegmenter(model.tokenizer)
    lines = sample.read_text(encoding="utf-8").splitlines()
    sources = cycle([segmenter.segment(line) for line in lines])
    engine = Engine(model, policy, Limits(streams=sessions), Sampling())

    def step() -> int:
        while engine.has_room:
            engine.push(engine.open(), next(sources))
        events = engine.step() or []
        for event in events:
            if isinstance(event, End):
                engine.release(event.lane)
        return sum(isinstance(event, Write) and event.token_id is not None for event in events)

    return engine, step


def whole_streams(model: StreamingCausalLM, policy: Policy, streams: int) -> int:
    """Streams from their beginning, making the engine included; the number of forwards."""
    engine = Engine(model, policy, Limits(streams=streams), Sampling())
    lanes = [engine.open() for _ in range(streams)]
    for number in range(NUM_UNITS):
        for lane in lanes:
            if not engine.state(lane).closed:
                ids, final = [100 + 37 * number % 300 + lane], number == NUM_UNITS - 1
                engine.push(lane, [Unit(token_ids=ids, final=final)])
        while engine.step() is not None:
            pass
    return engine.forwards


def count_calls(work: Callable[[], int]) -> float:
    """Python calls, built-in functions included, by the number that `work` returns."""
    work()  # what is looked up once is not counted
    profiler = cProfile.Profile()
    profiler.enable()
    number = work()
    profiler.disable()
    calls: int = pstats.Stats(profiler).total_calls  # type: ignore[attr-defined]
    return calls / number


def compare(model: Endless, repeats: int) -> None:
    """Print the CPU time of one stream written in several ways, taken by turns."""
    work = next(drawn_work(model, NUM_TOKENS, NUM_TOKENS, seed=0))
    source = [unit.token_ids for unit in work.units]
    sizes: list[int] = []
    handle = decoder_of(model.model).register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["inputs_embeds"].shape[1]),
        with_kwargs=True,
    )
    write_alone(model, work, LAG)
    handle.remove()
    prefill = sum(map(len, source)) + len(model.prompt.target_head)
    offline = [prefill] + [1] * (NUM_TOKENS - 1)
    ways: dict[str, tuple[int, Callable[[], float]]] = {
        "this library": (len(sizes), lambda: write_alone(model, work, LAG).cpu_s),
        "`generate`": (
            NUM_TOKENS,
            lambda: offline_generate(model.model, source, model.prompt, NUM_TOKENS).cpu_s,
        ),
        "decoder alone, tokens as here": (len(sizes), timed(decode_alone, model, sizes)),
        "decoder alone, as `generate`": (NUM_TOKENS, timed(decode_alone, model, offline)),
        "matrix products, as here": (len(sizes), timed(multiply_alone, model, sizes)),
        "matrix products, as `generate`": (NUM_TOKENS, timed(multiply_alone, model, offline)),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(1 + repeats):
        for name, (_, way) in ways.items():
            seconds = way()
            if turn:  # the first turn warms up
                spent[name].append(seconds)
    for name, (forwards, _) in ways.items():
        typical, least = median(spent[name]), min(spent[name])
        each = f"{1000 * typical / forwards:.2f} ({1000 * least / forwards:.2f})"
        print(f"| {name} | {each} | {NUM_TOKENS / typical:.1f} |")


def timed(
    work: Callable[[StreamingCausalLM, Sequence[int]], int],
    model: StreamingCausalLM,
    sizes: Sequence[int],
) -> Callable[[], float]:
    """A function that does some work and returns the CPU seconds it took."""

    def run() -> float:
        started = time.process_time()
        work(model, sizes)
        return time.process_time() - started

    return run


@torch.inference_mode()
def decode_alone(streaming: StreamingCausalLM, sizes: Sequence[int]) -> int:
    """Greedy forwards of so many tokens each, of transformers and nothing else: their number."""
    model, decoder = streaming.model, decoder_of(streaming.model)
    embed, output_layer = model.get_input_embeddings(), model.get_output_embeddings()
    name = cache_argument(decoder) or CACHE_ARGUMENTS[0]
    cache, first = DynamicCache(config=model.config), 0
    model.set_attn_implementation("sdpa")
    try:
        for size in sizes:
            output = decoder(
                inputs_embeds=embed(torch.ones(1, size, dtype=torch.long)),
                position_ids=torch.arange(first, first + size)[None],
                use_cache=True,
                **{name: cache},
            )
            output_layer(output.last_hidden_state[:, -1:]).argmax(-1).item()
            first += size
    finally:
        model.set_attn_implementation(ATTENTION)
    return len(sizes)


@torch.inference_mode()
def multiply_alone(streaming: StreamingCausalLM, sizes: Sequence[int]) -> int:
    """The matrix products of such forwards: their number."""
    output_layer = streaming.model.get_output_embeddings()
    layers = [m for m in streaming.model.modules() if isinstance(m, torch.nn.Linear)]
    for size in sizes:
        for layer in layers:
            num_rows = 1 if layer is output_layer else size
            F.linear(torch.ones(1, num_rows, layer.in_features), layer.weight)
    return len(sizes)


if __name__ == "__main__":
    main()
