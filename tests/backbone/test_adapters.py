"""An adapter beside its model: apart or merged, by itself or by name, with what lies beside it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.backbone.test_hub import put
from tests.cli.commands import Run, shortened, write_lines
from tests.cli.conftest import run as run
from tests.models import save_tiny
from transformers import AutoModelForCausalLM

from proactivellm.backbone import bundled, hub, known
from proactivellm.backbone.prompt import Prompt, StreamSettings
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load

SETTINGS = StreamSettings(boundary="token", phi=3, prompt=Prompt(target_head="<s>="))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny("qwen3", tmp_path_factory.mktemp("adapters") / "base")
    shortened(folder)
    StreamSettings(phi=5).save(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    """Weights alone, of a model that is said to lie somewhere else."""
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(
        model,
        LoraConfig(r=2, target_modules=["q_proj", "up_proj"], trainable_token_indices=[7]),
    )
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = base.parent / "adapter"
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


def logits(model: StreamingCausalLM) -> torch.Tensor:
    model.model.set_attn_implementation("eager")
    with torch.inference_mode():
        return model.model(input_ids=torch.tensor([[3, 4, 7, 5, 9]])).logits


def named(adapter: Path, name: str, folder: Path) -> Path:
    """The adapter again, of a model of that name."""
    shutil.copytree(adapter, folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": name}))
    return folder


def test_apart_merged_and_by_itself_are_the_same(base: Path, adapter: Path, tmp_path: Path) -> None:
    plain, apart = logits(load(base)), load(base, adapter=adapter)
    merged = load(base, adapter=str(adapter), merge=True)
    alone = load(named(adapter, str(base), tmp_path / "alone"))
    expected = logits(apart)
    assert not torch.allclose(plain, expected, atol=0.1)
    torch.testing.assert_close(logits(alone), expected, rtol=0, atol=0)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    assert merged.model.state_dict().keys() == load(base).model.state_dict().keys()
    assert merged.folder == apart.folder == adapter
    merged.model.save_pretrained(tmp_path / "merged")  # a whole model
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_what_lies_beside_the_adapter_wins(base: Path, adapter: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(adapter, tmp_path / "own"))
    assert load(base, adapter=own).settings == StreamSettings(phi=5)  # of the model: there is none
    SETTINGS.save(own)
    assert load(base, adapter=own).settings == SETTINGS


def test_one_that_comes_with_the_package_finds_its_model(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    shipped = named(adapter, "tiny", tmp_path / "assets" / "watch-tiny")
    (shipped / "README.md").write_text("---\nlanguage: [en]\nlicense: apache-2.0\n---\n")
    StreamSettings(boundary="token").save(shipped)
    of = known.KNOWN["smollm2-135m-instruct"]
    monkeypatch.setattr(bundled, "_ASSETS", tmp_path / "assets")
    monkeypatch.setitem(known.KNOWN, "tiny", of)
    monkeypatch.setenv("PROACTIVELLM_CACHE", str(tmp_path / "cache"))
    text = write_lines(tmp_path / "text", "Der Hund schläft auf dem Sofa")
    command = ("stream", "--model", "watch-tiny", "--input", text, "--policy", "wait-k:2")
    missing = run(*command)
    assert missing.code == 2
    assert missing.error.endswith("the model 'tiny' is not here yet: proactivellm pull tiny")

    shutil.copytree(base, tmp_path / "cache" / "models" / "tiny")
    (tmp_path / "cache" / "models" / "tiny" / "source.json").write_text("{}")
    beside = run("stream", "--model", str(base), "--adapter", "watch-tiny", *command[3:])
    assert (found := run(*command)).code == 0 and found.out and found.out == beside.out
    listed = [json.loads(line) for line in run("models", "--json").out.splitlines()]
    (line,) = [each for each in listed if each["name"] == "watch-tiny"]
    assert (line["where"], line["languages"], line["licence"]) == ("bundled", "en", "apache-2.0")
    (whole,) = [each for each in listed if each["name"] == "gemma-3-270m"]
    assert (line["base"], whole["base"]) == ("tiny", "")


def test_of_the_hub(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    snapshot = put(tmp_path / "hub", "me/adapter", adapter, ref="v2")
    assert load(base, adapter="me/adapter@v2").folder == snapshot
    with pytest.raises(ValueError, match="no model 'me/other': it is not in the cache"):
        load(base, adapter="me/other")


def test_what_is_no_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no adapter in .*: there is no adapter_config.json"):
        load(base, adapter=base)
    with pytest.raises(ValueError, match="it is an adapter of an adapter"):
        load(adapter, adapter=named(adapter, str(base), tmp_path / "again"))
    with pytest.raises(TypeError, match="unexpected keyword argument 'devise'"):
        load(base, devise="cpu")  # type: ignore[call-arg]


def test_from_the_shell(run: Run, base: Path, adapter: Path, tmp_path: Path) -> None:
    text = write_lines(tmp_path / "text.de", "Der Hund schläft")
    data = ("--input", text, "--policy", "wait-k:1")
    plain = run("stream", *data, "--model", base)
    apart = run("stream", *data, "--model", base, "--adapter", adapter)
    merged = run("stream", *data, "--model", base, "--adapter", adapter, "--merge-adapter")
    alone = run("stream", *data, "--adapter", named(adapter, str(base), tmp_path / "alone"))
    assert apart.code == 0 and plain.out != apart.out == merged.out == alone.out
    error = run("stream", *data, "--model", base, "--adapter", tmp_path / "nowhere").error
    assert "nowhere" in error
