"""The examples run as they stand."""

import runpy
from pathlib import Path

import pytest

from proactivellm.evaluation.evaluate import evaluate, make_jobs
from proactivellm.modality.loading import load

ROOT = Path(__file__).parents[1]


def test_own_model(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(ROOT / "examples/own_model.py"))["main"]
    text = main()
    shown = [line[3:] for line in capsys.readouterr().out.splitlines()]
    assert len(text.split()) > 3
    assert "".join(shown) == text


def test_read_write_path(tmp_path: Path) -> None:
    model = load("tatoeba-de-en")
    evaluate(model, make_jobs(["Ja.", "Ich weiß es nicht."], None), ["wait-k:1"], tmp_path)
    main = runpy.run_path(str(ROOT / "examples/read_write_path.py"))["main"]
    picture = main(str(tmp_path / "wait-k_1/instances.log"), "1", str(tmp_path / "path.png"))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_listen(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(ROOT / "examples/listen.py"))["main"]
    text = main(str(ROOT / "src/proactivellm/assets/speech-sample/digits-0.flac"))
    shown = [line[9:] for line in capsys.readouterr().out.splitlines()]
    assert len(text.split()) > 2
    assert "".join(shown) == text
