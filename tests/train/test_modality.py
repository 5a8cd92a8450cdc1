"""Training names no modality: a second one is trained, resumed and streamed by its own file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

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


def run(folder: Path, recipe: str) -> subprocess.CompletedProcess[str]:
    (folder / "recipe.toml").write_text(recipe)
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.train.frames"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_second_modality_is_trained_resumed_and_streamed(folder: Path) -> None:
    done = run(folder, RECIPE)
    assert not done.returncode, done.stderr
    losses = [entry for entry in logged(folder / "out") if "loss" in entry]
    assert losses[-1]["loss_batch"] < 0.5 * losses[0]["loss_batch"]
    assert losses[-1]["ctc"] < 0.7 * losses[0]["ctc"]
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["source_type"], told["source_length"]) == ("frames", 500.0)
    assert told["prediction"].startswith("red") and set(told["delays"]) <= {200.0, 400.0, 500.0}
    whole = load_file(folder / "out" / "frames" / "net.safetensors")
    for step in folder.glob("out/checkpoint-*"):
        if int(step.name.partition("-")[2]) > 36:
            shutil.rmtree(step)
    (folder / "out" / "training_log.jsonl").unlink()
    assert any(folder.glob("out/checkpoint-*")), "it should go on from a checkpoint"
    again = run(folder, RECIPE)
    assert not again.returncode, again.stderr
    resumed = load_file(folder / "out" / "frames" / "net.safetensors")
    assert all((whole[name] == resumed[name]).all() for name in whole)


def test_a_recipe_has_one_front_end(folder: Path) -> None:
    both = run(folder, RECIPE + "[speech]\n")
    assert "a model has one front end: give either [speech] or [frames]" in both.stderr
