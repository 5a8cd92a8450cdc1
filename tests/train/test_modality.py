"""Training names no modality: a second one is trained, resumed and streamed by its own file."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from tests.train.runs import logged

ROOT = Path(__file__).parents[2]
RECIPE = """
[data.train]
manifest = "train.jsonl"
[backbone]
model_type = "qwen3"
vocab_size = 300
[backbone.config]
hidden_size = 32
num_hidden_layers = 1
intermediate_size = 64
num_attention_heads = 2
num_key_value_heads = 2
head_dim = 16
initializer_range = 0.1
[frames]
ctc_weight = 0.2
[optimisation]
epochs = 20
batch_size = 4
learning_rate = 1e-2
precision = "fp32"
[output]
save_steps = 12
log_steps = 1
dtype = "float32"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that are named by their brightest column, in one colour or two, and a recipe."""
    folder = tmp_path_factory.mktemp("frames")
    lines = []
    for column, name in enumerate(("red", "green", "blue")):
        frames = np.zeros((5, 3, 3), np.float32)
        frames[..., column] = 1.0
        np.save(folder / f"{name}.npy", frames)
        lines.append({"audio": f"{name}.npy", "text": name, "duration_s": 0.5})
    for first, second in (("red", "blue"), ("blue", "green"), ("green", "red")):
        lines.append({"audio": [f"{first}.npy", f"{second}.npy"], "text": f"{first} {second}"})
    lines += [{"source": "red", "text": "red"}, {"source": "blue red", "text": "blue red"}]
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def trainer(folder: Path) -> Iterator[Callable[[str], Any]]:
    """Trains by a recipe, in one interpreter for all: which modalities there are, it reads once."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.train.frames"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process:

        def train(recipe: str) -> Any:
            (folder / "recipe.toml").write_text(recipe)
            process.stdin.write("recipe.toml\n")
            told = ""
            while not told.startswith('{"'):  # what else is printed is progress
                told = process.stdout.readline()
                assert told, f"it ended with {process.wait()}"
            return json.loads(told)

        yield train
        process.stdin.close()


def test_a_second_modality_is_trained_resumed_and_streamed(folder: Path, trainer) -> None:
    told = trainer(RECIPE)
    losses = [entry for entry in logged(folder / "out") if "loss" in entry]
    assert losses[-1]["loss_batch"] < 0.5 * losses[0]["loss_batch"]
    assert losses[-1]["ctc"] < 0.7 * losses[0]["ctc"]
    assert (told["source_type"], told["source_length"]) == ("frames", 500.0)
    assert told["prediction"].startswith("red") and set(told["delays"]) <= {200.0, 400.0, 500.0}
    weights = folder / "out" / "frames" / "net.safetensors"
    whole = load_file(weights)
    for step in folder.glob("out/checkpoint-*"):
        if int(step.name.partition("-")[2]) > 36:
            shutil.rmtree(step)
    (folder / "out" / "training_log.jsonl").unlink()
    weights.unlink()
    assert any(folder.glob("out/checkpoint-*")), "it should go on from a checkpoint"
    assert trainer(RECIPE) == told
    resumed = load_file(weights)
    assert all((whole[name] == resumed[name]).all() for name in whole)


def test_a_recipe_has_one_front_end(trainer) -> None:
    told = trainer(RECIPE + "[speech]\n")
    assert "a model has one front end: give either [speech] or [frames]" in told["error"]
