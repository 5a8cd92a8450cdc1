"""Training runs that take a second: recipes, their data, and what they leave behind."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from proactivellm.files.toml import load_toml
from proactivellm.train.recipe import Recipe

SOURCE = "der die ein Mann Hund Katze Sofa geht steht schläft auf dem und Größe".split()
TARGET = "the a man dog cat sofa goes stands sleeps on it and size".split()

SCRATCH = """
[data]
concat = [1, 2]
[data.train]
tsv = "PAIRS"
[data.valid]
tsv = "PAIRS"
limit = 6
[backbone]
model_type = "qwen3"
vocab_size = 320
[backbone.config]
hidden_size = 32
num_hidden_layers = 2
intermediate_size = 48
num_attention_heads = 2
num_key_value_heads = 2
head_dim = 16
attention_dropout = 0.1
initializer_range = 0.2
[optimisation]
epochs = 2
batch_size = 4
learning_rate = 1e-2
precision = "fp32"
warmup_steps = 3
[output]
save_steps = 3
eval_steps = 4
log_steps = 1
dtype = "float32"
"""

PRETRAINED = """
instruction = "To English: "
[data.train]
tsv = "PAIRS"
[backbone]
pretrained = "FOLDER"
[optimisation]
batch_size = 4
gradient_accumulation = 2
learning_rate = 1e-2
precision = "fp32"
[output]
save_steps = 2
log_steps = 1
dtype = "float32"
"""


def write_pairs(folder: Path, count: int = 40) -> Path:
    """A TSV of random word sequences, as many words on either side."""
    rng = np.random.default_rng(0)
    path = folder / "pairs.tsv"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            length = int(rng.integers(2, 8))
            sides = (rng.choice(SOURCE, length), rng.choice(TARGET, length))
            file.write("\t".join(" ".join(words) for words in sides) + "\n")
    return path


def write_recipe(folder: Path, text: str, backbone: Path | None = None) -> Path:
    """A recipe file beside its pairs."""
    text = text.replace("PAIRS", str(write_pairs(folder))).replace("FOLDER", str(backbone))
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def make_recipe(folder: Path, text: str, backbone: Path | None = None) -> Recipe:
    """The same, loaded."""
    return load_toml(write_recipe(folder, text, backbone), Recipe)


def logged(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without those that tell the time."""
    lines = (out / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [entry for entry in entries if "train_runtime" not in entry]


class Asked:
    """Asks a run to stop from the n-th time on that it looks."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    @property
    def came(self) -> bool:
        self.left -= 1
        return self.left <= 0

    def noting(self, told: str = "") -> AbstractContextManager[None]:
        assert "stops after this update" in told
        return nullcontext()
