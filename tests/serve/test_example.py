"""The example with the client of OpenAI runs as it stands, with the bundled model."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.serve.conftest import running

from proactivellm.serve.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "examples/realtime.py"


def test_realtime(run: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLE))["main"]
    with running(Settings(models=("tatoeba-de-en",))) as server:
        text = run(main("Ich habe einen Freund.", f"{server.url}/v1"))
    assert len(text.split()) > 2
    assert capsys.readouterr().out == f"{text}\n"
