"""The examples and the code of the README run as they stand."""

import re
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


def test_readme_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert len(capsys.readouterr().out.split()) > 5


def test_readme_recipe_is_valid(tmp_path: Path) -> None:
    from proactivellm.config import load_toml
    from proactivellm.train.recipe import Recipe

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    path = tmp_path / "my.toml"
    path.write_text(block, encoding="utf-8")
    assert load_toml(path, Recipe).backbone.pretrained
