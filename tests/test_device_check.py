"""The checks for a GPU can be made on a CPU as well, so that the script is known to run."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import device_check

    monkeypatch.setattr(device_check, "FAMILIES", ("qwen3",))
    return device_check


def test_every_check_of_one_family(checks: ModuleType) -> None:
    results = list(checks.run(["laws", "bf16"], "cpu", 100))
    assert [result["status"] for result in results] == ["passed", "passed"], results
    assert results[0]["gap"] <= 1e-4 < results[1]["gap"], "bf16 rounds, fp32 does not"


def test_a_fault_and_a_lack_of_time_are_told(
    checks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def wrong(device: str, folder: Path) -> dict[str, float]:
        return checks._within({"qwen3": 0.5}, 1e-4)

    monkeypatch.setitem(checks.CHECKS, "laws", wrong)
    results = list(checks.run(["laws"], "cpu", 100))
    assert results[0]["status"] == "failed" and "qwen3: 0.5" in results[0]["reason"]
    assert list(checks.run(["laws"], "cpu", -1)) == [{"check": "laws", "status": "not run"}]
    flags = ["--device", "cpu", "--check", "laws", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["device_check.py", *flags])
    assert checks.main() == 1
    assert (tmp_path / "device.json").exists()


def test_no_gpu_is_told(
    checks: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["device_check.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert checks.main() == 2
    assert "sees no GPU here" in capsys.readouterr().err
