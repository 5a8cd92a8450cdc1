"""The worked examples of docs/extending run as they stand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models import save_tiny

from proactivellm.evaluation.evaluate import evaluate
from proactivellm.modality.kinds import KINDS
from proactivellm.output.log import read_log
from proactivellm.tasks.jobs import read_jobs

EXTENDING = Path(__file__).parents[1] / "docs/extending"


def run_blocks(name: str, **names: Any) -> dict[str, Any]:
    """Executes the Python of an example; returns what it defines."""
    text = (EXTENDING / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, name, "exec"), names)
    return names


def test_front_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(KINDS, "readings", raising=False)  # and the entry is undone afterwards
    monkeypatch.setitem(KINDS, "readings", None)
    readings = np.random.default_rng(0).standard_normal(33).astype(np.float32)
    np.savetxt(tmp_path / "pump.readings", readings)
    found = run_blocks("front_end.md", folder=save_tiny("qwen3", tmp_path / "model"))
    model = found["model"]
    assert capsys.readouterr().out.startswith("1.0 ")  # two units: what wait-k:2 waits for
    ear = model.front_end.open(10)
    units = [unit for block in np.split(readings, [1, 9, 20]) for unit in ear.push(block, 0.0)]
    streamed = torch.cat([unit.features for unit in [*units, *ear.finish(3.3)][:-1]])
    assert torch.allclose(streamed, model.front_end.embed(readings), atol=1e-6)
    evaluate(model, read_jobs(None, "pump.readings"), ["wait-k:2"], tmp_path / "out")
    (log,) = (tmp_path / "out").glob("*/instances.log")
    (instance,) = read_log(log)
    assert instance.source_type == "readings" and instance.source_length == 3300.0
