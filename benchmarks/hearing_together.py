"""What it buys to hear live streams in one forward, with the language model and without.

    python benchmarks/hearing_together.py --seconds 30
    python benchmarks/hearing_together.py --no-gate

1 to 16 live streams of the bundled recordings arrive at the same pace, a unit at a time, and are
heard one after another, or together. Time goes to the encoder (its convolutions and layers), to the
front end (the gate, features and projector besides) and to all (the language model besides).
"""

import argparse
import time
from collections import Counter
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from proactivellm.modality.loading import load
from proactivellm.modality.speech.files import read_audio
from proactivellm.modality.speech.resample import RATE
from proactivellm.policy.base import Policy
from proactivellm.policy.spec import parse_policy
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Hearing, Streams

SAMPLES = Path(str(files("proactivellm") / "assets/speech-sample"))


def together(model, policy: Policy, num_seconds: int) -> None:
    """What hearing several streams in one forward buys, with the language model and without."""
    front_end, spent = model.front_end, Counter[str]()
    speech = [read_audio(str(file)) for file in sorted(SAMPLES.glob("*.opus"))]
    tower = front_end.encoder.tower
    clock(tower.conv1, tower.conv2, "convolution", spent)
    clock(tower.layers[0], tower.layers[-1], "encoder", spent)
    print("| streams | heard | forwards | encoder, s | front end, s | all, s | RTF of a stream |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for count in (1, 4, 8, 16):
        sources = []
        for index in range(count):  # each begins elsewhere
            turned = [speech[(index + k) % len(speech)] for k in range(len(speech))]
            sources.append(np.resize(np.concatenate(turned), num_seconds * RATE))
        texts = []
        for way in ("alone", "together"):
            front_end.hear = partial(hear_alone if way == "alone" else hear_timed, front_end, spent)
            spent.clear()
            started = time.perf_counter()
            texts.append(heard_live(model, policy, sources))
            all_s = time.perf_counter() - started
            encoder_s = spent["encoder"] + spent["convolution"]
            parts = f"{encoder_s:.2f} | {spent['hear']:.2f} | {all_s:.2f}"
            rtf = all_s / count / num_seconds
            print(f"| {count} | {way} | {spent['encoders']} | {parts} | {rtf:.4f} |", flush=True)
        same = sum(a == b for a, b in zip(*texts, strict=True))
        words = sum(len(text.split()) for text in texts[0])
        print(f"|  | same text | {same} of {count} | {words} words | | | |", flush=True)


def hear_timed(front_end, spent: Counter[str], heard: list) -> list:
    """Hears all at once."""
    started = time.perf_counter()
    results = type(front_end).hear(front_end, heard)
    spent["hear"] += time.perf_counter() - started
    return results


def hear_alone(front_end, spent: Counter[str], heard: list) -> list:
    """Hears one after another."""
    return [units for each in heard for units in hear_timed(front_end, spent, [each])]


def clock(first: torch.nn.Module, last: torch.nn.Module, name: str, spent: Counter[str]) -> None:
    """Adds the time from the begin of one module to the end of another, and counts it."""
    started = [0.0]

    def begin(*_: object) -> None:
        started[0] = time.perf_counter()

    def end(*_: object) -> None:
        spent[name] += time.perf_counter() - started[0]
        spent[f"{name}s"] += 1

    first.register_forward_pre_hook(begin)
    last.register_forward_hook(end)


def heard_live(model, policy: Policy, sources: list[np.ndarray]) -> list[str]:
    """What is written of sources that arrive at the same time, a unit at a time."""
    streams = Streams(model, policy, Limits(streams=len(sources)), Sampling())
    live = [streams.open(hearing=Hearing(model, RATE)) for _ in sources]
    size = round(model.front_end.unit_s * RATE)
    for start in range(0, len(sources[0]), size):
        for stream, source in zip(live, sources, strict=True):
            stream.push(source[start : start + size])
        while streams.step() is not None:
            pass
    for stream in live:
        stream.close()
    while streams.step() is not None:
        pass
    return [stream.instance().prediction for stream in live]


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="speech-en")
    parser.add_argument("--policy", default="wait-k:3")
    parser.add_argument("--seconds", type=int, default=30, help="of each stream")
    parser.add_argument("--no-gate", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.model)
    if args.no_gate:
        model.front_end.gate = None
    together(model, parse_policy(args.policy), args.seconds)


if __name__ == "__main__":
    main()
