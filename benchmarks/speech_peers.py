"""Streaming recognisers on the same recordings, with one normaliser: WER, delays, cost, silence.

    python -m venv runs/peers
    runs/peers/bin/pip install faster-whisper pocketsphinx soundfile
    python benchmarks/speech_peers.py --peers runs/peers/bin/python --whisper runs/whisper-ct2 \
        --set runs/speech-data/read-test.jsonl:30 --set runs/speech-data/digits-test.jsonl:20 \
        --model speech-en --policy learned:laal=600 --policy ctc:1,min_lag=-99 \
        --out runs/peers.jsonl

--whisper: a Whisper in the format of CTranslate2. So many recordings of each --set are spread
evenly over it. Words that nobody said are counted in half a minute each of silence and of noise
(white, -30 dB). Delays are ms of audio that had arrived when a word was final (LAAL, YAAL); nothing
that is written is ever taken back. CPU s / s: seconds of CPU time for a second of audio. The
others run one after the other in `speech_peers_outside.py`; local agreement takes 5 CPU seconds for
a second of audio.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch

from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.files.growing import open_lines
from proactivellm.metrics.score import score
from proactivellm.metrics.transcripts import normalise
from proactivellm.modality.loading import load
from proactivellm.modality.speech.files import read_audio
from proactivellm.modality.speech.joined import GAP_S
from proactivellm.modality.speech.resample import RATE
from proactivellm.output.log import Instance
from proactivellm.policy.spec import parse_policy
from proactivellm.stream import Job, run_streams
from proactivellm.tasks.speech import read_manifest

OUTSIDE = Path(__file__).with_name("speech_peers_outside.py")
SYSTEMS = ("whisper", "whisper-agreement", "pocketsphinx", "pocketsphinx-agreement")
NOTHING_S = 30
NOISE_DB = -30
DIGITS = "zero one two three four five six seven eight nine".split()
COLUMNS = ("WER", "insertions", "LAAL", "YAAL")


class Spoken(NamedTuple):
    """A recording."""

    kind: str  # the set it is of
    file: str
    text: str
    duration_s: float


class Heard(NamedTuple):
    """What a system made of it."""

    words: list[str]
    delays: list[float]  # ms that had arrived
    cpu_s: float


def main() -> None:
    """Prints a line of the table for each system and set, as soon as it is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, help="Python of the environment of the others")
    parser.add_argument("--whisper", type=Path, help="folder in the format of CTranslate2")
    parser.add_argument("--set", action="append", required=True, metavar="MANIFEST:N")
    parser.add_argument("--system", action="append", help="of the others", choices=SYSTEMS)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--policy", action="append", default=[])
    parser.add_argument("--out", type=Path, help="JSON lines, with all words")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, open_lines(args.out) as out:
        spoken = [*recordings(args.set, Path(folder)), *nothing(Path(folder))]
        print(f"| | set | {' | '.join(COLUMNS)} | CPU s / s | words in a minute of nothing |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for name, heard in systems(args, spoken, Path(folder)):
            for row in rows(name, spoken, heard):
                print(row, flush=True)
            if out:
                out.write(json.dumps({"name": name, "heard": heard}, ensure_ascii=False) + "\n")
                out.flush()


def recordings(sets: list[str], folder: Path) -> Iterator[Spoken]:
    """So many of each manifest, as WAV."""
    gap = np.zeros(round(GAP_S * RATE), np.float32)
    for place in sets:
        manifest, _, count = place.rpartition(":")
        items = read_manifest(manifest)
        for number in range(min(int(count), len(items))):
            item = items[number * len(items) // int(count)]
            sounds = [part for file in item.media for part in (gap, read_audio(file))][1:]
            kind = Path(manifest).stem
            yield saved(folder / f"{kind}-{number}.wav", kind, np.concatenate(sounds), item.target)


def nothing(folder: Path) -> Iterator[Spoken]:
    """Recordings in which nobody speaks."""
    count = NOTHING_S * RATE
    noise = np.random.default_rng(5).standard_normal(count) * 10 ** (NOISE_DB / 20)
    yield saved(folder / "silence.wav", "nothing", np.zeros(count, np.float32), "")
    yield saved(folder / "noise.wav", "nothing", noise.astype(np.float32), "")


def saved(file: Path, kind: str, samples: np.ndarray, text: str) -> Spoken:
    """The recording, written as WAV."""
    soundfile.write(file, samples, RATE, subtype="PCM_16")
    return Spoken(kind, str(file), text, len(samples) / RATE)


def systems(
    args: argparse.Namespace, spoken: list[Spoken], folder: Path
) -> Iterator[tuple[str, list[Heard]]]:
    """All of them, by name."""
    for model in args.model:
        yield from ours(model, args.policy, spoken)
    if args.peers is None:
        return
    jobs, told = folder / "jobs.json", folder / "told.jsonl"
    jobs.write_text(json.dumps([each.file for each in spoken]), encoding="utf-8")
    for system in args.system or SYSTEMS:
        command = [str(args.peers), str(OUTSIDE), system, str(jobs), str(told)]
        subprocess.run([*command, "--whisper", str(args.whisper)], check=True)
        lines = told.read_text(encoding="utf-8").splitlines()
        yield system, [Heard(**json.loads(line)) for line in lines]


def ours(name: str, policies: list[str], spoken: list[Spoken]) -> Iterator[tuple[str, list[Heard]]]:
    """A model of this library, under each policy, one stream at a time."""
    model = load(name)
    for spec in policies:
        policy = parse_policy(spec, find_calibration(model))
        heard = []
        for each in spoken:
            job = Job(index=0, source="", task="asr", media=(each.file,))
            begin = time.process_time()
            (instance,) = run_streams(model, policy, [job])
            cpu_s = time.process_time() - begin
            heard.append(Heard(instance.prediction.split(), list(instance.delays), cpu_s))
        yield f"{Path(name).name}, {spec}", heard


def rows(name: str, spoken: list[Spoken], heard: list[Heard]) -> Iterator[str]:
    """Its lines of the table, one for each set."""
    pairs = list(zip(spoken, heard, strict=True))
    invented = sum(len(each.words) for said, each in pairs if said.kind == "nothing")
    per_min = invented * 60 / (2 * NOTHING_S)
    for kind in dict.fromkeys(said.kind for said in spoken if said.kind != "nothing"):
        chosen = [(said, each) for said, each in pairs if said.kind == kind]
        scores = score([instance(i, *pair) for i, pair in enumerate(chosen)])
        audio_s = sum(said.duration_s for said, _ in chosen)
        cpu = sum(each.cpu_s for _, each in chosen) / audio_s
        shown = " | ".join(number(scores.get(key), 0 if "AL" in key else 1) for key in COLUMNS)
        yield f"| {name} | {kind} | {shown} | {cpu:.2f} | {per_min:.0f} |"


def spelt(heard: Heard) -> Heard:
    """The same with each digit as a word: some write "7, 1", and the references say it in words."""
    pairs = zip(heard.words, heard.delays, strict=True)
    apart = [
        (DIGITS[int(part)] if part.isdecimal() else part, delay)
        for word, delay in pairs
        for part in re.findall(r"[0-9]|[^0-9]+", word)
    ]
    kept = [(word, delay) for word, delay in apart if normalise(word)]
    return Heard([word for word, _ in kept], [delay for _, delay in kept], heard.cpu_s)


def instance(index: int, said: Spoken, heard: Heard) -> Instance:
    """The log entry."""
    whole_ms, heard = round(1000 * said.duration_s, 3), spelt(heard)
    delays = [min(delay, whole_ms) for delay in heard.delays]
    given: dict[str, Any] = {"source_type": "speech", "task": "asr", "reference": said.text}
    given |= {"policy": "fixed", "forwards": None, "tokens": None, "token_delays": delays}
    return Instance(
        index=index,
        source=said.file,
        source_length=whole_ms,
        prediction=" ".join(heard.words),
        prediction_length=len(heard.words),
        delays=delays,
        elapsed=delays,
        **given,
    )


def number(value: float | None, digits: int) -> str:
    """A dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
