"""The worked example of docs/extending/front_end.md runs as it stands."""

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

PAGE = Path(__file__).parents[2] / "docs/extending/front_end.md"


def run_blocks(**names: Any) -> dict[str, Any]:
    """Executes the Python of the page; returns what it defines."""
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert sum(block.count("\n") for block in code) < 60
    for block in code:
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_front_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    monkeypatch.delitem(KINDS, "readings", raising=False)  # and the entry is undone afterwards
    monkeypatch.setitem(KINDS, "readings", None)
    readings = np.random.default_rng(0).standard_normal(33).astype(np.float32)
    np.savetxt(tmp_path / "pump.readings", readings)
    found = run_blocks(folder=save_tiny("qwen3", tmp_path / "model"))
    model = found["model"]
    told = [float(line.split(" ")[0]) for line in capsys.readouterr().out.splitlines()]
    assert told and told == sorted(told) and told[0] >= 1.0
    ear = model.front_end.open(10)
    units = [unit for block in np.split(readings, [1, 9, 20]) for unit in ear.push(block, 0.0)]
    streamed = torch.cat([unit.features for unit in [*units, *ear.finish(3.3)][:-1]])
    assert torch.allclose(streamed, model.front_end.embed(readings), atol=1e-6)
    evaluate(model, read_jobs(None, "pump.readings"), ["wait-k:2"], tmp_path / "out")
    (log,) = (tmp_path / "out").glob("*/instances.log")
    (instance,) = read_log(log)
    assert instance.source_type == "readings" and instance.source_length == 3300.0
    assert instance.token_delays[0] == 1000.0  # two units, for which wait-k:2 waits
