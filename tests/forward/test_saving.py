"""A streaming model is saved, and pushed, with all that makes it, and with a card."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import metadata_load
from peft import LoraConfig, get_peft_model
from tests.models import save_tiny
from transformers import AutoModelForCausalLM

from proactivellm.backbone.bundled import bundled_models
from proactivellm.backbone.card import About
from proactivellm.backbone.prompt import Prompt, StreamSettings
from proactivellm.forward import saving
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load

SETTINGS = StreamSettings(boundary="token", phi=3, prompt=Prompt(target_head="<s>="))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that was trained, under a licence."""
    folder = save_tiny("qwen3", tmp_path_factory.mktemp("saving") / "own")
    SETTINGS.save(folder)
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: de\n---\n# own\n")
    recipe = {"backbone": {"pretrained": "gemma-3-270m"}, "lora": {"r": 16}}
    (folder / "training.json").write_text(json.dumps({"recipe": recipe}))
    shutil.copy(bundled_models()["tatoeba-de-en"] / "learned.safetensors", folder)
    return folder


@pytest.fixture(scope="module")
def model(own: Path) -> StreamingCausalLM:
    return load(own)


def same_weights(one: StreamingCausalLM, other: StreamingCausalLM) -> bool:
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_folder_is_the_model_again(model: StreamingCausalLM, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "table.md").write_text("| policy | BLEU |\n| --- | --- |\n| offline | 40 |\n")
    about = About(data="Tatoeba, CC BY 2.0 FR.", languages=("de", "en"), results=results)
    model.save_pretrained(tmp_path / "saved", about)
    again = load(tmp_path / "saved")
    assert again.settings == SETTINGS and same_weights(again, model)
    assert (tmp_path / "saved" / "learned.safetensors").is_file()
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "# saved\n" in card and "Tatoeba, CC BY 2.0 FR." in card and '"r": 16' in card
    assert "| offline | 40 |" in card and "phi 3" in card and str(tmp_path) not in card
    first = metadata_load(tmp_path / "saved" / "README.md")
    assert first["license"] == "gemma" and first["base_model"] == "google/gemma-3-270m"
    assert first["language"] == ["de", "en"] and first["library_name"] == "proactivellm"


def test_an_adapter_is_saved_alone(own: Path, tmp_path: Path) -> None:
    lora = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[7])
    plain = get_peft_model(AutoModelForCausalLM.from_pretrained(own), lora)
    for parameter in plain.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    plain.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    apart = load(own, adapter=tmp_path / "adapter")
    apart.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    again = load(tmp_path / "saved")
    assert again.settings == SETTINGS and same_weights(again, apart)
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "An adapter that" in card and "license: mit" in card  # of the model beneath


def test_it_is_pushed_as_it_is_saved(
    model: StreamingCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def upload(_: object, *, repo_id: str, folder_path: str, **__: object) -> SimpleNamespace:
        shutil.copytree(folder_path, tmp_path / "pushed")
        return SimpleNamespace(commit_url=f"https://example.org/{repo_id}")

    monkeypatch.setattr(saving.HfApi, "create_repo", lambda _, *a, **how: made.append((a, how)))
    monkeypatch.setattr(saving.HfApi, "upload_folder", upload)
    address = model.push_to_hub("me/own", About(licence="cc-by-4.0"), private=True)
    assert address == "https://example.org/me/own"
    assert made == [(("me/own",), {"exist_ok": True, "private": True})]
    assert same_weights(load(tmp_path / "pushed"), model)
    card = (tmp_path / "pushed" / "README.md").read_text()
    assert "--model me/own" in card and "license: cc-by-4.0" in card

    def refuse(*_: object, **__: object) -> None:
        raise OSError("401 Unauthorized\nlog in")

    monkeypatch.setattr(saving.HfApi, "create_repo", refuse)
    with pytest.raises(ValueError, match="cannot push to 'me/own': 401 Unauthorized$"):
        model.push_to_hub("me/own")


def test_results_that_are_not_there(model: StreamingCausalLM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no results in .*: there is no table.md"):
        model.save_pretrained(tmp_path / "saved", About(results=tmp_path))
    assert not list((tmp_path / "saved").iterdir())
