"""`calibrate --policy learned`: trains a head where there is none, keeps one that is there."""

import shutil
from pathlib import Path

from tests.cli.commands import Run

from proactivellm.backbone.bundled import bundled_models
from proactivellm.policy.calibration import Calibration
from proactivellm.policy.head import HEAD_FILE, Head

SAMPLE = Path(__file__).parents[2] / "src/proactivellm/assets/tatoeba-sample"


def test_a_missing_head_is_trained_and_another_on_demand(run: Run, tmp_path: Path) -> None:
    model = shutil.copytree(bundled_models()["tatoeba-de-en"], tmp_path / "model")
    (model / HEAD_FILE).unlink()
    before = Calibration.load(model).points
    for side in ("de", "en"):
        lines = (SAMPLE / f"test.{side}").read_text(encoding="utf-8").splitlines()
        (tmp_path / f"dev.{side}").write_text("\n".join(lines[:4]) + "\n")
        (tmp_path / f"more.{side}").write_text("\n".join(lines[4:8]) + "\n")
    dev = ("--source", tmp_path / "dev.de", "--target", tmp_path / "dev.en")
    command = ("calibrate", "--model", model, *dev, "--policy", "learned")

    done = run(*command)
    assert done.code == 0 and "head of learned: AUC 0." in done.out, done
    first = Head.load(model)
    assert (first.about["description"], first.about["num_sources"]) == ("dev.de", "4")
    points = Calibration.load(model).points
    assert {point.policy for point in points} == {point.policy for point in before}
    others = [point for point in points if point.policy != "learned"]
    assert others == [point for point in before if point.policy != "learned"]

    assert "head of learned" not in run(*command).out  # it has one
    assert Head.load(model).digest == first.digest
    run(*command, "--head-source", tmp_path / "more.de")
    assert Head.load(model).digest != first.digest
    assert Head.load(model).about["description"] == "more.de"
