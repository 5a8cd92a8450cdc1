"""The table of compatibility: its tool tells models that obey from those that cannot, and why."""

import importlib
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/guide/compatibility.md"


@pytest.fixture(scope="module")
def tool() -> Any:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module("compatibility")
    finally:
        sys.path.remove(str(ROOT / "tools"))


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        *(("qwen3", ""), ("gemma2", ""), ("gpt2", "")),
        ("mamba", "layers of a kind that cannot stream: linear_attention"),
        ("openai-gpt", "no keys and values per token"),
        ("bart", "no position ids"),
        ("bert", "more than a decoder and an output layer"),
        ("gemma3n", "not tried: needs the package timm"),
    ],
)
def test_each_answer(tool: Any, model_type: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("transformers.utils.import_utils.is_timm_available", lambda: False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert tool.in_few_words(tool.reason_against(model_type)) == why
    finally:
        torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on
def test_a_crash_and_a_hang_cost_a_row(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(model_type: str) -> str:
        if model_type == "ends":
            sys.exit(3)
        time.sleep(60)
        return ""

    monkeypatch.setattr(tool, "reason_against", reason)
    monkeypatch.setattr(tool, "LIMIT_S", 1)
    assert tool.try_alone("ends") == "SystemExit: 3"
    assert tool.try_alone("hangs") == "no answer within 1 s"


def test_the_page_names_every_model_type_of_its_release() -> None:
    text = PAGE.read_text(encoding="utf-8")
    (release,) = re.findall(r"causal LM of transformers ([\d.]+),", text)
    rows = dict(re.findall(r"^\| `(\S+)` \| (\w+) \| (?:yes|no|not tried) \|", text, re.MULTILINE))
    obeying, count = map(int, re.search(r"(\d+) of (\d+) model types obey", text).groups())
    assert (len(rows), text.count("| yes |  |")) == (count, obeying)
    here = dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert rows == here or release != transformers.__version__
    # An older release has fewer of them; of a newer one the page is to be made again.
    as_numbers = [tuple(map(int, v.split(".")[:2])) for v in (transformers.__version__, release)]
    if as_numbers[0] < as_numbers[1]:
        assert rows.items() >= here.items()
