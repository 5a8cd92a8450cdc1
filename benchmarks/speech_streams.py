"""What a model that listens does with streams that are no clean speech, and with very long ones.

    python benchmarks/speech_streams.py nothing --model runs/speech-en
    python benchmarks/speech_streams.py formats --manifest runs/speech-data/read-test.jsonl
    python benchmarks/speech_streams.py long --manifest ... --hours 2

nothing: ten minutes each of silence and of several noises: words written, with the gate and
without. formats: word error rate of the same recordings clipped, at 8 and 48 kHz, in stereo, cut in
half, in noise. long: a stream of recordings with silence and noise between them, as fast as it can
be heard: memory every ten minutes, words, real-time factor. All is drawn from a seed.
"""

import argparse
import json
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from proactivellm.metrics.score import score
from proactivellm.modality.loading import load
from proactivellm.modality.speech.files import read_audio
from proactivellm.modality.speech.resample import RATE
from proactivellm.policy.base import Policy
from proactivellm.policy.spec import parse_policy
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window
from proactivellm.stream import Job, MediaUnits, run_streams, stream_units
from proactivellm.tasks.speech import read_manifest

BLOCK = 5120  # samples that arrive together, 320 ms
MINUTES = 10


def noise(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Silence or a noise, float32 [count]."""
    time_s = np.arange(count) / RATE
    if kind == "silence":
        return np.zeros(count, np.float32)
    if kind == "hum":
        parts = [np.sin(2 * np.pi * 50 * k * time_s) / k for k in (1, 2, 3, 5)]
        return (0.1 * np.sum(parts, axis=0)).astype(np.float32)
    if kind == "clicks":
        samples = np.zeros(count)
        samples[rng.integers(0, count, count // RATE * 2)] = rng.uniform(-1, 1, count // RATE * 2)
        return samples.astype(np.float32)
    white = rng.standard_normal(count)
    if kind.startswith("pink"):
        spectrum = np.fft.rfft(white)
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), count * 20 / RATE))
        white = np.fft.irfft(spectrum, count)
    level = 10 ** (float(kind.rpartition(" ")[2]) / 20)
    return np.clip(level * white / white.std(), -1, 1).astype(np.float32)


def blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Cuts samples into blocks."""
    for start in range(0, len(samples), BLOCK):
        yield samples[start : start + BLOCK]


def resident_mb() -> float:
    """Memory of the process now, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def nothing(model, policy: Policy, args: argparse.Namespace) -> None:
    """Words written where there is nothing to write."""
    gate = model.front_end.gate
    print("| ten minutes of | words, gated | words, no gate | LM forwards, gated | x real time |")
    print("| --- | ---: | ---: | ---: | ---: |")
    kinds = ("silence", "white -50", "white -30", "white -10", "pink -30", "pink -15", "hum")
    for kind in (*kinds, "clicks"):
        samples = noise(kind, MINUTES * 60 * RATE, np.random.default_rng(1))
        found = {}
        for name, chosen in (("gated", gate), ("no gate", None)):
            model.front_end.gate = chosen
            if chosen is None and kind not in ("silence", "white -30", "pink -30"):
                continue
            started = time.perf_counter()
            heard = MediaUnits(model, blocks(samples), RATE)
            window = Window(source=256, target=256)
            instance = last(stream_units(model, policy, heard, Sampling(), window))
            spent_s = time.perf_counter() - started
            found[name] = instance, MINUTES * 60 / spent_s
        gated, speed = found["gated"]
        open_words = found["no gate"][0].prediction_length if "no gate" in found else "-"
        words = f"{gated.prediction_length} | {open_words}"
        print(f"| {kind} | {words} | {gated.forwards} | {speed:.0f} |", flush=True)


def last(events):
    """The value of a generator."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def formats(model, policy: Policy, args: argparse.Namespace) -> None:
    """Word error rates of altered recordings."""
    items = read_manifest(args.manifest)
    items = items[:: max(1, len(items) // args.limit)][: args.limit]
    rng = np.random.default_rng(2)

    def noisy(decibel: float) -> Callable[[np.ndarray], np.ndarray]:
        def add(x: np.ndarray) -> np.ndarray:
            level = float(np.sqrt(np.mean(x**2))) * 10 ** (-decibel / 20)
            return x + level * rng.standard_normal(len(x))

        return add

    ways: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
        "as it is": (RATE, lambda x: x),
        "clipped (+20 dB)": (RATE, lambda x: np.clip(10 * x, -1, 1)),
        "8 kHz": (8000, lambda x: soxr.resample(x, RATE, 8000)),
        "48 kHz": (48000, lambda x: soxr.resample(x, RATE, 48000)),
        "stereo, one side silent": (RATE, lambda x: np.stack([x, 0 * x], 1)),
        "30 dB quieter": (RATE, lambda x: x * 10**-1.5),
        "white noise, 20 dB": (RATE, noisy(20)),
        "white noise, 10 dB": (RATE, noisy(10)),
        "10 s of silence around": (RATE, lambda x: np.pad(x, 10 * RATE)),
    }
    print("| recordings | WER | CER | words written |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for name, (rate, change) in ways.items():
            jobs = []
            for index, item in enumerate(items):
                file = Path(folder) / f"{index}.wav"
                soundfile.write(file, change(read_audio(item.media[0])), rate, "PCM_16")
                jobs.append(job(index, str(file), item.target))
            show(name, model, policy, jobs)
        for index, item in enumerate(items):  # the header promises what the file does not hold
            file = Path(folder) / f"{index}.wav"
            soundfile.write(file, read_audio(item.media[0]), RATE, "PCM_16")
            data = file.read_bytes()
            file.write_bytes(data[: len(data) // 2])
        jobs = [job(i, str(Path(folder) / f"{i}.wav"), item.target) for i, item in enumerate(items)]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            show("cut in half", model, policy, jobs)
        print(f"\n{sum('is cut' in str(w.message) for w in told)} warnings of cut files")


def job(index: int, file: str, text: str) -> Job:
    """A recording to transcribe."""
    return Job(index=index, source="", media=(file,), reference=text, task="asr")


def show(name: str, model, policy: Policy, jobs: list[Job]) -> None:
    """One row."""
    done = list(run_streams(model, policy, jobs, limits=Limits(streams=8), sampling=Sampling()))
    scores = score(done)
    words = sum(instance.prediction_length for instance in done)
    print(f"| {name} | {scores['WER']:.1f} | {scores['CER']:.1f} | {words} |", flush=True)


def long(model, policy: Policy, args: argparse.Namespace) -> None:
    """Memory along a stream of hours."""
    items = read_manifest(args.manifest)
    rng = np.random.default_rng(3)
    rows: list[dict[str, float]] = []
    state = {"seconds": 0.0, "told": 0.0}
    started = time.perf_counter()

    def arriving() -> Iterator[np.ndarray]:
        while state["seconds"] < args.hours * 3600:
            speech = read_audio(items[int(rng.integers(len(items)))].media[0])
            pause = noise(
                "silence" if rng.random() < 0.5 else "pink -45", int(rng.uniform(1, 8) * RATE), rng
            )
            for block in blocks(np.concatenate([speech, pause])):
                state["seconds"] += len(block) / RATE
                yield block
            if state["seconds"] - state["told"] >= 600:
                state["told"] = state["seconds"]
                spent = time.perf_counter() - started
                rows.append({"minutes": state["seconds"] / 60, "mb": resident_mb(), "s": spent})
                print(
                    f"| {rows[-1]['minutes']:.0f} | {rows[-1]['mb']:.1f} | "
                    f"{state['seconds'] / spent:.1f} |",
                    flush=True,
                )

    print("| minutes heard | memory, MB | x real time |\n| ---: | ---: | ---: |")
    window = Window(source=args.window, target=args.window) if args.window else None
    heard = MediaUnits(model, arriving(), RATE)
    instance = last(stream_units(model, policy, heard, Sampling(), window))
    after = [row["mb"] for row in rows[1:]]
    growth = 100 * (max(after) / rows[0]["mb"] - 1) if after else float("nan")
    rtf = (instance.compute_ms or 0) / instance.source_length
    print(
        f"\n{instance.prediction_length} words; memory after ten minutes: {growth:+.1f} % at most; "
        f"RTF {rtf:.3f}; dropped {instance.dropped_units} units"
    )
    print(json.dumps(rows))


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("nothing", "formats", "long"))
    parser.add_argument("--model", default="speech-en")
    parser.add_argument("--policy", default="wait-k:3")
    parser.add_argument("--manifest")
    parser.add_argument("--limit", type=int, default=100, help="recordings of `formats`")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--no-gate", action="store_true")
    parser.add_argument("--window", type=int, default=0, help="tokens in view, for `long`")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.model)
    if args.no_gate:
        model.front_end.gate = None
    parts = {"nothing": nothing, "formats": formats, "long": long}
    parts[args.part](model, parse_policy(args.policy), args)


if __name__ == "__main__":
    main()
