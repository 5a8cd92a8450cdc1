"""Does a change leave every output as it was? Records what the library writes, compares records.

    python tools/reference.py record before.jsonl      # before the change
    python tools/reference.py record after.jsonl       # after it
    python tools/reference.py compare before.jsonl after.jsonl

The bundled models translate, answer and listen under every kind of policy, alone, batched, sampled
and in a window; three short trainings (of a bundled model, from scratch, of one that listens) tell
their losses and gradient norms at every step, and the SHA-256 of the weights that they end with.
Everything goes through the command line, so that the same script asks the code before and after a
change. Minutes on two cores; numbers that depend on the clock are left out.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import ROOT

SAMPLE = ROOT / "src/proactivellm/assets/tatoeba-sample"
SPEECH = ROOT / "tests/data/speech-50/manifest.jsonl"
NUM_PAIRS = 60
NUM_RECORDINGS = 12
TRANSLATE = (
    "offline",
    "wait-k:3",
    "entropy:laal=3",
    "confidence:laal=3",
    "attention:laal=4",
    "alignatt:1,heads=calibrated",
    "local-agreement:2",
    "hold-n:3",
)
LISTEN = ("offline", "wait-k:3,stride=2", "attention:laal=800")
QUESTION = "where does tom live ? anna keeps a cat . tom lives in oslo . ben plays chess .\n"
# Names of scores that hold one of these depend on the clock.
OF_THE_CLOCK = (
    *("CA", "num_undefined", "RTF", "time", "elapsed", "_s", "P50", "P90", "first", "final"),
)
OF_TRAINING = ("loss", "kl", "grad_norm", "router", "ctc")

PAIRS = """
[data]
concat = [1, 4]
[data.train]
source = "source.de"
target = "target.en"
"""
OPTIMISATION = """
[optimisation]
epochs = {epochs}
batch_size = {batch_size}
learning_rate = 1e-4
precision = "fp32"
seed = 1
[output]
log_steps = 1
dtype = "float32"
"""
PRETRAINED = PAIRS + '[backbone]\npretrained = "tatoeba-de-en"\n[objective]\nkl_weight = 0.1\n'
SCRATCH = """
[backbone]
model_type = "qwen3"
vocab_size = 512
[backbone.config]
hidden_size = 48
intermediate_size = 96
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 12
[stream]
layout = "interleaved"
phi = 3
"""
LISTENER = f"""
[data.train]
manifest = "{SPEECH}"
[backbone]
pretrained = "speech-en"
[speech]
pretrained = "speech-en"
ctc_weight = 0.5
[speech.augment]
speed = [0.9, 1.12]
noise_share = 0.5
"""
RECIPES = {
    "pretrained": PRETRAINED + OPTIMISATION.format(epochs=20, batch_size=16),
    "scratch": PAIRS + SCRATCH + OPTIMISATION.format(epochs=10, batch_size=8),
    "listener": LISTENER + OPTIMISATION.format(epochs=2, batch_size=8),
}


def record(folder: Path) -> Iterator[list[Any]]:
    """Runs everything in an empty folder; yields what must not change: of what, and the values."""
    for name, file in (("source.de", "test.de"), ("target.en", "test.en")):
        lines = (SAMPLE / file).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:NUM_PAIRS]), encoding="utf-8")
    pairs = ["--source", "source.de", "--target", "target.en"]
    run(folder, "evaluate", *pairs, *policies(TRANSLATE), "--out", "translate")
    run(folder, "evaluate", *pairs, *policies(TRANSLATE[1:3]), "--out", "window", "--window", "32")
    recordings = ["--source", str(SPEECH), "--limit", str(NUM_RECORDINGS)]
    run(folder, "evaluate", *recordings, *policies(LISTEN), "--out", "listen")
    eight = "".join((folder / "source.de").read_text(encoding="utf-8").splitlines(True)[:8])
    sampling = ["--temperature", "0.8", "--seed", "3"]
    entropy = ["--policy", "entropy:laal=3"]
    run(folder, "stream", *entropy, "--log", "stream.log", text=eight)
    run(folder, "stream", *entropy, *sampling, "--log", "sampled.log", text=eight)
    ask = ["--model", "lookup-qa", "--policy", "entropy:0.5"]
    run(folder, "stream", *ask, "--log", "answer.log", text=QUESTION)
    for log in sorted(folder.rglob("*.log")):
        for instance in json_lines(log):
            if "prediction" in instance:
                name = str(log.relative_to(folder))
                yield [name, instance["index"], instance["prediction"], instance["delays"]]
    for scores in sorted(folder.glob("*/scores.json")):
        for number, row in enumerate(json.loads(scores.read_text(encoding="utf-8"))):
            kept = {k: v for k, v in row.items() if not any(part in k for part in OF_THE_CLOCK)}
            yield [str(scores.relative_to(folder)), number, kept]
    for name, recipe in RECIPES.items():
        yield from train(folder, name, recipe)


def train(folder: Path, name: str, recipe: str) -> Iterator[list[Any]]:
    """A short training: yields the losses of each step, then the digests of the weights."""
    (folder / f"{name}.toml").write_text(recipe, encoding="utf-8")
    run(folder, "train", f"{name}.toml", "--out", name)
    for step in json_lines(folder / name / "training_log.jsonl"):
        yield [name, step.get("step"), {k: v for k, v in step.items() if is_loss(k)}]
    for weights in sorted((folder / name).rglob("*.safetensors")):
        if "checkpoint" not in str(weights.relative_to(folder)):
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
            yield [name, str(weights.relative_to(folder)), digest]


def is_loss(name: str) -> bool:
    """Whether a number of the training log is one that must not change."""
    return any(part in name for part in OF_TRAINING)


def policies(specs: tuple[str, ...]) -> list[str]:
    """The flags of some policies."""
    return [word for spec in specs for word in ("--policy", spec)]


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def run(folder: Path, *words: str, text: str = "") -> None:
    """The command line, in a folder; ends this script if it fails."""
    print("proactivellm", *words, file=sys.stderr)
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-m", "proactivellm", *words],
        input=text,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | threads | {"PYTHONPATH": str(ROOT / "src")},
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def compare(before: Path, after: Path) -> int:
    """Prints the values that differ between two records, and returns how many do."""
    old, new = ({json.dumps(r[:2]): r[2:] for r in json_lines_of(p)} for p in (before, after))
    differing = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    for key in differing:
        print(f"{key}\n  before {old.get(key)}\n  after  {new.get(key)}")
    print(f"{len(differing)} of {len(new)} values differ")
    return len(differing)


def json_lines_of(path: Path) -> list[list[Any]]:
    """The rows of a record."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("out", type=Path)
    both = commands.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        return int(compare(options.before, options.after) > 0)
    with tempfile.TemporaryDirectory() as folder:
        rows = [json.dumps(row, sort_keys=True) for row in record(Path(folder))]
    options.out.write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(rows)} values in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
