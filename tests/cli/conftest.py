"""A tiny model, and commands run in this process: starting another costs seconds of imports."""

import re
from collections.abc import Iterator

import pytest
import torch
from tests.cli.commands import Done, Run, save_short

from proactivellm.cli import main


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Every test of this room runs on one torch thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny model, to be read only."""
    return save_short(tmp_path_factory.mktemp("cli") / "model")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; its arguments may be of any type."""

    def run_here(*arguments: object) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as raised:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        told = re.sub(r"\Aloading .*\n", "", captured.err)  # tests/cli/test_startup.py is about it
        return Done(int(raised.value.code or 0), captured.out, told)

    return run_here
