"""What only a machine with an accelerator can show: laws, CUDA graphs, bf16 and int8 on a device.

Run: tools/device_check.sh, or python tools/device_check.py --device cuda --out out/device
In: tiny random models of every family of the law, and the bundled model. Out: a line a check, and
device.json with every number. It ends with status 1 if a check failed or the time ran out.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.laws import streams  # noqa: E402
from tests.models import FAMILIES, save_tiny  # noqa: E402

from proactivellm.core.schedule import wait_k  # noqa: E402
from proactivellm.modality.loading import load  # noqa: E402
from proactivellm.modality.text import TextSegmenter  # noqa: E402
from proactivellm.policy.spec import parse_policy  # noqa: E402
from proactivellm.session.engine import Engine  # noqa: E402
from proactivellm.session.limits import Limits  # noqa: E402

EXACT = 1e-4  # of the largest logit, in fp32: the tolerance of the law
ROUGH = 0.15  # in bf16: what loading a model allows (forward/law.py)
SPECS = ("wait-k:2", "entropy:threshold=4.7,max_lag=6", "attention:threshold=0.2")
NUM_SOURCE, NUM_TARGET = 12, 12
SENTENCES = 24  # of the bundled sample
TEXT_POLICY = "entropy:threshold=1,min_lag=1,max_lag=5"

Result = dict[str, Any]
Check = Callable[[str, Path], Result]
Streams = list[tuple[list[int], list[int]]]  # target and delays of each


def check_laws(device: str, folder: Path) -> Result:
    """A stream has the logits of one masked forward, in every family and layout, in fp32."""
    gaps = {}
    for family in FAMILIES:
        place = _tiny(family, folder)
        for layout in ("grouped", "interleaved"):
            model = streams.load(place, device=device, boundary="token", layout=layout)
            gaps[f"{family} {layout}"] = _law_gap(model, EXACT)
    return _within(gaps, EXACT)


def check_graphs(device: str, folder: Path) -> Result:
    """Steps replayed as CUDA graphs write what steps as they come write; logits within EXACT."""
    gaps, captured = {}, 0
    for family in ("qwen3", "gemma3_text", "mistral"):
        model = streams.load(_tiny(family, folder), device=device)
        for spec in SPECS:
            model.accelerate(None)
            expected, logits, _ = _streams(model, spec)
            model.accelerate("graph")
            actual, replayed, graphs = _streams(model, spec)
            _same(actual, expected, f"{family} under {spec}")
            gaps[f"{family} {spec}"] = max(map(streams.gap, replayed, logits))
            captured += graphs
    if torch.device(device).type == "cuda" and not captured:
        raise AssertionError("no step was captured as a CUDA graph")
    return {"graphs": captured, **_within(gaps, EXACT)}


def check_compiled(device: str, folder: Path) -> Result:
    """Compiled steps write what steps as they come write; one stream, as each shape takes long."""
    model = streams.load(_tiny("qwen3", folder), device=device)
    expected, logits, _ = _streams(model, SPECS[0], lengths=(6,))
    model.accelerate("compile")
    actual, compiled, _ = _streams(model, SPECS[0], lengths=(6,))
    _same(actual, expected, "compiled")
    return _within({"qwen3": max(map(streams.gap, compiled, logits))}, EXACT)


def check_bf16(device: str, folder: Path) -> Result:
    """In bf16 the law holds within the tolerance with which a model is loaded."""
    gaps = {}
    for family in FAMILIES:
        place = _tiny(family, folder)
        model = streams.load(place, device=device, dtype=torch.bfloat16, boundary="token")
        gaps[family] = _law_gap(model, ROUGH)
    return _within(gaps, ROUGH)


def check_int8(device: str, folder: Path) -> Result:
    """With 8-bit weights the law holds within the same tolerance; needs torchao."""
    model = streams.load(
        _tiny("qwen3", folder), device=device, dtype=None, quantization="int8", boundary="token"
    )
    return _within({"qwen3": _law_gap(model, ROUGH)}, ROUGH)


def check_texts(device: str, folder: Path) -> Result:
    """The bundled model writes on the device what it writes on a CPU, one stream or many."""
    lines = _sample()
    alone = _texts("cpu", lines, num_streams=1)
    together = _texts(device, lines, num_streams=len(lines))
    differing = [line for line, a, b in zip(lines, alone, together, strict=True) if a != b]
    if differing:  # greedy choices between equals may fall the other way; more is a fault
        raise AssertionError(f"{len(differing)} of {len(lines)} differ, such as {differing[0]!r}")
    return {"sentences": len(lines)}


CHECKS: dict[str, Check] = {
    "laws": check_laws,
    "graphs": check_graphs,
    "bf16": check_bf16,
    "texts": check_texts,
    "int8": check_int8,
    "compiled": check_compiled,
}


def _tiny(family: str, folder: Path) -> Path:
    place = folder / family
    if not place.exists():
        place.mkdir(parents=True)
        save_tiny(family, place, "word_piece")
    return place


def _law_gap(model: streams.Recorder, tolerance: float) -> float:
    size = len(model.tokenizer)
    source = streams.random_units(NUM_SOURCE, size, seed=1)
    target = [*streams.random_ids(NUM_TARGET, size, seed=2), streams.END]
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = len(target)
    gap = streams.law_gap(model, source, target, k=3)
    sample = streams.sample_of(model.prompt, source, target)
    other = wait_k(1, len(source), len(target))
    wrong = streams.masked_logits(model, sample, [other])[0]
    control = streams.gap(model.recorded(len(target)), wrong)
    if not control > tolerance:
        raise AssertionError(f"under a wrong schedule the gap is {control:.2g}: nothing is checked")
    return gap


def _streams(
    model: streams.Recorder, spec: str, lengths: tuple[int, ...] = (9, 2, 5, 1, 7)
) -> tuple[Streams, list[torch.Tensor], int]:
    """Streams of so many units at once: what they wrote, their logits, and the graphs captured."""
    model.logits = {}
    model.forced = {}
    engine = Engine(model, parse_policy(spec), Limits(streams=len(lengths)))
    for number, length in enumerate(lengths):
        units = streams.random_units(length, len(model.tokenizer), seed=number)
        engine.push(engine.open(), streams.as_units(units))
    while engine.step() is not None:
        pass
    states = [engine.state(lane) for lane in range(len(lengths))]
    written = [(list(state.target), list(state.delays)) for state in states]
    logits = [model.recorded(len(state.delays), lane) for lane, state in enumerate(states)]
    kept = {} if model.static is None else model.static._steps[engine.cache]
    return written, logits, sum(step.graph is not None for step in kept.values())


def _sample() -> list[str]:
    path = ROOT / "src/proactivellm/assets/tatoeba-sample/test.de"
    return path.read_text(encoding="utf-8").splitlines()[:SENTENCES]


def _texts(device: str, lines: list[str], num_streams: int) -> list[str]:
    model = load("tatoeba-de-en", device=device, dtype=torch.float32)
    engine = Engine(model, parse_policy(TEXT_POLICY), Limits(streams=num_streams))
    words, texts = TextSegmenter(model.tokenizer), []
    for start in range(0, len(lines), num_streams):
        chunk = lines[start : start + num_streams]
        lanes = [engine.open() for _ in chunk]
        for lane, line in zip(lanes, chunk, strict=True):
            engine.push(lane, words.segment(line))
        while engine.step() is not None:
            pass
        for lane in lanes:
            texts.append(engine.state(lane).detokenizer.text)
            engine.release(lane)
    return texts


def _same(actual: Streams, expected: Streams, name: str) -> None:
    if actual != expected:
        number = next(i for i, pair in enumerate(expected) if actual[i] != pair)
        raise AssertionError(
            f"{name}: stream {number} wrote {actual[number]}, not {expected[number]}"
        )


def _within(gaps: dict[str, float], tolerance: float) -> Result:
    worst = max(gaps, key=lambda name: gaps[name])
    if not gaps[worst] <= tolerance:
        raise AssertionError(f"{worst}: {gaps[worst]:.2g} of the logit scale, over {tolerance:g}")
    return {"cases": len(gaps), "worst": worst, "gap": gaps[worst], "tolerance": tolerance}


def run(names: list[str], device: str, budget_s: float) -> Iterator[Result]:
    """Runs checks of CHECKS; none begins after `budget_s` seconds, and those are told as not run.

    Yields the name, `status` (passed, failed, not run), seconds and numbers of each.
    """
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            started_s = time.monotonic()
            if started_s - began_s > budget_s:
                yield {"check": name, "status": "not run"}
                continue
            try:
                numbers = {"status": "passed", **CHECKS[name](device, Path(folder))}
            except Exception as error:  # whatever a device makes of it is the result
                reason = (str(error).strip() or repr(error)).splitlines()[0]
                numbers = {"status": "failed", "reason": f"{type(error).__name__}: {reason}"}
                traceback.print_exc()
            yield {"check": name, **numbers, "seconds": round(time.monotonic() - started_s, 1)}


def main() -> int:
    """Runs the checks that the command line names."""
    parser = argparse.ArgumentParser(description="Checks on a machine with an accelerator.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--out", type=Path, default=Path("out/device"), help="folder of device.json"
    )
    parser.add_argument("--check", action="append", choices=CHECKS, help="one of them; repeatable")
    parser.add_argument("--budget", type=float, default=180, help="seconds")
    flags = parser.parse_args()
    if flags.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            f"error: --device {flags.device}: torch {torch.__version__} sees no GPU here; "
            "give --device cpu to try the checks themselves",
            file=sys.stderr,
        )
        return 2
    results = []
    for result in run(flags.check or list(CHECKS), flags.device, flags.budget):
        print(json.dumps(result), flush=True)
        results.append(result)
        flags.out.mkdir(parents=True, exist_ok=True)
        (flags.out / "device.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    return int(any(result["status"] != "passed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
