"""`--dtype` and `--quantization`: what they load, and how a mistake is told."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.commands import Run, write_lines
from torchao.quantization import Int8Tensor

from proactivellm.backbone import precision
from proactivellm.cli.models import quiet_imports
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality import loading
from proactivellm.output.log import read_log

COMMANDS = ("stream", "evaluate")


def arguments(command: str, model: str, folder: Path) -> tuple[object, ...]:
    """A whole command on two short sources; logs are written in the folder."""
    source = write_lines(folder / "text.de", "Der Hund schläft", "Ein Mann")
    where = {
        "stream": ("--input", source, "--log", folder / "instances.log"),
        "evaluate": ("--source", source, "--out", folder),
    }
    return command, "--model", model, "--policy", "wait-k:2", *where[command]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[StreamingCausalLM]:
    """The models that commands load."""
    models = []
    load = loading.load

    def keep(*args: Any, **kwargs: Any) -> StreamingCausalLM:
        models.append(load(*args, **kwargs))
        return models[-1]

    monkeypatch.setattr(loading, "load", keep)
    return models


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("flags", "dtype", "is_int8"),
    [
        ((), torch.float32, False),
        (("--dtype", "auto", "--quantization", "none"), torch.float32, False),
        (("--dtype", "float16"), torch.float16, False),
        (("--quantization", "int8"), torch.float32, True),
        (("--dtype", "bfloat16", "--quantization", "int8"), torch.bfloat16, True),
    ],
)
def test_weights_are_of_the_precision_asked_for(
    run: Run,
    model: str,
    tmp_path: Path,
    loaded: list[StreamingCausalLM],
    command: str,
    flags: tuple[str, ...],
    dtype: torch.dtype,
    is_int8: bool,
) -> None:
    done = run(*arguments(command, model, tmp_path), *flags)
    assert done.code == 0, done
    (streaming,) = loaded
    assert streaming.model.dtype == dtype
    weight = streaming.model.get_decoder().layers[0].self_attn.q_proj.weight
    assert isinstance(weight, Int8Tensor) == is_int8
    (log,) = tmp_path.rglob("instances.log")
    assert [len(i.delays) > 0 for i in read_log(log)] == [True, True]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ("--dtype", "float8"),
            "unknown dtype 'float8': choose auto, float32, bfloat16 or float16",
        ),
        (("--quantization", "int4"), "unknown quantization 'int4': choose none, int8 or nf4"),
        (
            ("--quantization", "int8", "--dtype", "float16"),
            "int8 weights overflow in float16: choose bfloat16 or float32",
        ),
    ],
)
def test_mistakes(
    run: Run, model: str, tmp_path: Path, command: str, flags: tuple[str, ...], told: str
) -> None:
    assert run(*arguments(command, model, tmp_path), *flags).error == told


@pytest.mark.parametrize("command", COMMANDS)
def test_without_torchao_the_extra_is_named(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(precision, "is_torchao_available", lambda least: False)
    error = run(*arguments(command, model, tmp_path), "--quantization", "int8").error
    assert error.endswith("pip install 'proactivellm[quant]'")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_choices(run: Run, command: str) -> None:
    words = re.findall(r"[\w-]+", run(command, "--help").out)
    assert {*precision.DTYPES, *precision.QUANTIZATIONS, "--dtype", "--quantization"} <= {*words}


def test_imports_are_quiet_only_within(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("torchao")
    level = logger.level
    with quiet_imports():
        logger.warning("no kernels")
        logger.error("an error")
    logger.warning("later")
    assert [record.message for record in caplog.records] == ["an error", "later"]
    assert logger.level == level
