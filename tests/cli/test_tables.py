"""`calibrate` and `train`, the policies a table gives, and the help."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.commands import Run, write_lines
from tests.train.runs import SCRATCH, write_recipe

from proactivellm.cli import train
from proactivellm.evaluation import calibrate
from proactivellm.output.log import read_log
from proactivellm.policy.calibration import Calibration, CalibrationMeta, CalibrationPoint

SENTENCES = ["Der Hund schläft auf dem Sofa", "Ein Mann putzt ein Fenster", "Die Katze sieht zu"]


@pytest.fixture
def own_model(tmp_path: Path, model: str) -> Path:
    """A model folder to write to."""
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    source = write_lines(tmp_path / "dev.de", *SENTENCES)
    target = write_lines(tmp_path / "dev.en", *reversed(SENTENCES))
    return ("--source", str(source), "--target", str(target))


def save_table(folder: Path) -> None:
    """Entropy thresholds 1, 2, 3 give LAAL 5, 4, 2."""
    points = [
        CalibrationPoint(
            policy="entropy",
            options={"top": 0, "min_lag": 1, "max_lag": None},
            threshold=threshold,
            **{"LAAL": laal, "AL": laal, "RCO": laal / 8, "quality": 10.0 * laal},
        )
        for threshold, laal in ((1.0, 5.0), (2.0, 4.0), (3.0, 2.0))
    ]
    meta = CalibrationMeta(source="dev", num_instances=3)
    Calibration(meta=meta, points=tuple(points)).save(folder)


def test_calibrate(
    run: Run,
    own_model: Path,
    files: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = functools.partial(calibrate.Grid, quantiles=(0.3, 0.6), min_lags=(1,), max_lags=(None,))
    monkeypatch.setattr(calibrate, "Grid", small)
    command = ("calibrate", "--model", own_model, *files)
    done = run(*command, "--policy", "entropy", "--policy", "confidence")
    assert done.code == 0 and done.out.startswith("4 points on 3 instances written to ")
    assert done.err == "entropy: 3/3\nconfidence: 3/3\n"
    table = Calibration.load(own_model)
    assert table.meta.source == "dev.de"  # the name of the file, not where it is
    assert [point.policy for point in table.points] == ["entropy"] * 2 + ["confidence"] * 2

    assert run(*command, "--policy", "attention").code == 0  # added to what was there
    table = Calibration.load(own_model)
    assert {point.policy for point in table.points} == {"entropy", "confidence", "attention"}
    assert table.heads

    log = own_model / "log"
    stream = ("stream", "--model", own_model, "--input", files[1], "--log", log, "--policy")
    assert run(*stream, "entropy:quantile=0.3").code == 0
    assert read_log(log)[0].policy.startswith("entropy:threshold=")


def test_policies_by_target(run: Run, own_model: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = write_lines(tmp_path / "text", "Der Hund schläft")
    command = ("stream", "--model", own_model, "--input", text, "--log", log)
    error = run(*command, "--policy", "entropy:laal=3").error
    assert "'entropy:laal=3' needs a calibration table" in error and "`proactivellm calib" in error
    save_table(own_model)
    assert run(*command, "--policy", "entropy:laal=3").code == 0
    assert read_log(log)[0].policy == "entropy:threshold=2.5,min_lag=1"
    error = run(*command, "--policy", "entropy:laal=6").error
    assert "outside the calibrated range, laal 2 to 5" in error
    assert run(*command).code == 0
    assert read_log(log)[0].policy == "entropy:threshold=2.5,min_lag=1"  # the default, once it can


def test_table_elsewhere(run: Run, files: tuple[str, ...], tmp_path: Path, model: str) -> None:
    out = tmp_path / "none" / "table.json"
    error = run("calibrate", "--model", model, *files, "--out", out).error
    assert error == f"cannot write {out}: give a writable file or folder with --out"


def test_calibrate_asks_for_references_before_anything_else(
    run: Run, files: tuple[str, ...]
) -> None:
    source = files[files.index("--source") + 1]
    asked = run("calibrate", "--source", source, "--model", "no-such", "--policy", "learned")
    assert "calibration needs references: give --target" in asked.error


def test_calibrate_needs_a_threshold(run: Run, files: tuple[str, ...], model: str) -> None:
    error = run("calibrate", "--model", model, *files, "--policy", "wait-k:3").error
    assert "wait-k" in error and "entropy, confidence, control, learned, ctc, attention" in error


def test_train_then_stream(run: Run, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, SCRATCH.replace("epochs = 2", "epochs = 1"))
    out = tmp_path / "out"
    done = run("train", recipe, "--out", out)
    assert done.code == 0 and done.out.splitlines()[-1] == f"model saved in {out}"
    text = write_lines(tmp_path / "text", "der Hund schläft")
    done = run("stream", "--model", out, "--input", text)
    assert done.code == 0 and done.out.count("\n") == 1


def test_train_without_its_extra(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None)
    recipe = write_recipe(tmp_path, SCRATCH)
    error = run("train", recipe, "--out", tmp_path / "out").error
    assert error.startswith("training needs accelerate") and "'proactivellm[train]'" in error


def test_every_mistake_of_a_recipe_is_told(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[data.train]\ntsv = 'x'\n[backbone]\nmodel_typo = 'qwen3'\n")
    done = run("train", recipe, "--out", tmp_path / "out")
    assert done.code == 2 and not (tmp_path / "out").exists()
    assert all(line.startswith(f"error: {recipe}: ") for line in done.err.splitlines())
    assert "did you mean 'model_type'?" in done.err


def test_help_lists_the_policies(run: Run) -> None:
    for command in ("stream", "evaluate", "calibrate"):
        done = run(command, "--help")
        assert done.code == 0
        for name in ("wait-k", "offline", "entropy", "attention", "local-agreement", "hold-n"):
            assert f" {name} " in done.out


def test_help_and_scoring_need_no_torch(tmp_path: Path) -> None:
    log = tmp_path / "log"
    instance = {"source": "a b", "source_length": 2, "prediction": "c", "prediction_length": 1}
    times = {"index": 0, "reference": "c", "delays": [2], "elapsed": [3.0]}
    log.write_text(json.dumps(instance | times) + "\n")
    code = (
        "import sys; from proactivellm.cli import main\n"
        "for command in (['--help'], ['--version'], ['score', sys.argv[1]]):\n"
        "    try: main(command)\n"
        "    except SystemExit as end: assert not end.code\n"
        "print({'torch', 'transformers'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code, str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Usage: proactivellm" in done.stdout and "proactivellm 0." in done.stdout
    assert "100.0" in done.stdout and done.stdout.endswith("set()\n")
