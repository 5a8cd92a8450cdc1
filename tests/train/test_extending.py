"""The worked example of a new objective is run as it stands in the documentation."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.train.runs import SCRATCH, logged, write_recipe

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending" / "objective.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_a_new_objective_is_one_file_and_one_name(tmp_path):
    text = SCRATCH.replace("epochs = 2", "epochs = 1").replace("eval_steps = 4", "eval_steps = 0")
    write_recipe(tmp_path, text + blocks("toml")[0])
    script = tmp_path / "script.py"
    script.write_text("\n".join(blocks("python")), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    losses = [entry for entry in logged(tmp_path / "out") if "loss" in entry]
    for entry in losses:
        parts = entry["loss_batch"] + entry["loss_mslm"] + 0.1 * entry["kl"]
        assert entry["loss"] == pytest.approx(parts + 0.2 * entry["confidence"], abs=2e-3)
    assert losses[-1]["confidence"] < 0  # minus an entropy


def test_the_page_is_short():
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) < 60
