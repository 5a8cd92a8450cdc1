"""Recipes of known tasks and models: each pair is valid; some are trained and scored, tiny."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.commands import Run, shortened
from tests.models import CHAT_TEMPLATE, save_tiny
from tests.tokenizers import build
from transformers import AutoConfig, AutoModelForCausalLM

from proactivellm.backbone.known import KNOWN
from proactivellm.backbone.prompt import load_settings
from proactivellm.files.toml import load_toml
from proactivellm.modality.loading import load
from proactivellm.train.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
PAPER, LORA = RECIPES / "settings/paper.toml", RECIPES / "settings/lora.toml"
TASKS = sorted((RECIPES / "tasks").glob("*.toml"))
BACKBONES = sorted((RECIPES / "backbones").glob("*.toml"))
NUM_ROWS = 8
THINKING = (  # as Qwen3 and SmolLM3 do it
    "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "<think></think>{% endif %}"
)
ROWS: dict[str, dict[str, Any]] = {
    "squad": {
        **{"question": "Who sleeps?", "context": "The dog sleeps on the sofa."},
        **{"answers": {"text": ["The dog"], "answer_start": [0]}},
    },
    "mctest": {
        **{"question": "Who sleeps?", "story": "The dog sleeps.", "answer": "A"},
        **{"answer_options": {"A": "a dog", "B": "a man", "C": "a cat", "D": "a child"}},
    },
    "dialogsum": {"dialogue": "#Person1#: Hi!\n#Person2#: Hello.", "summary": "They greet."},
    "iwslt17-en-de": {"translation": {"en": "The dog sleeps.", "de": "Der Hund schläft."}},
}
ANY_SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
ANY_SIZE |= {"num_attention_heads": 4, "num_key_value_heads": 2}


def test_every_task_meets_every_backbone() -> None:
    assert len(TASKS) == 7 and len(BACKBONES) == 10
    for task in TASKS:
        for backbone in BACKBONES:
            recipe = load_toml(PAPER, Recipe, [task, backbone])
            assert recipe.data.valid is not None and recipe.instruction
            assert recipe.lora is None and recipe.optimisation.learning_rate == 5e-5
            adapted = load_toml(PAPER, Recipe, [task, backbone, LORA])
            assert adapted.lora and adapted.backbone == recipe.backbone


def test_adapters_are_small_and_name_models_that_can_be_pulled() -> None:
    adapters = RECIPES / "adapters"
    tasks = {
        "smollm2-135m": ("watch", "answers", "notes"),
        "gemma-3-270m": ("de-en", "en-de"),
    }
    files = {adapters / f"{name}.toml" for base in tasks for name in (base, *tasks[base])}
    further = adapters / "watch.further.toml"
    assert files | {further} == set(adapters.glob("*.toml"))
    first, second = (
        load_toml(adapters / "smollm2-135m.toml", Recipe, [adapters / "watch.toml", *more])
        for more in ([], [further])
    )
    assert second.lora and second.lora.start and second.data.train != first.data.train
    assert second.objective == first.objective and second.backbone == first.backbone
    for base, names in tasks.items():
        for name in names:
            recipe = load_toml(adapters / f"{base}.toml", Recipe, [adapters / f"{name}.toml"])
            packed = KNOWN[recipe.backbone.pretrained or ""].packed
            assert packed and recipe.lora and not recipe.lora.merge
            assert recipe.data.valid and recipe.stream and recipe.stream.prompt.target_head
            assert recipe.objective.silent_until_due == (name in ("watch", "answers"))


def test_what_is_missing_below_is_told_with_all_files() -> None:
    with pytest.raises(ValueError, match=r"paper\.toml \+ .*squad\.toml: backbone: required key"):
        load_toml(PAPER, Recipe, [RECIPES / "tasks/squad.toml"])


def save_backbone(family: str, folder: Path) -> Path:
    if family in ("qwen3", "llama"):
        save_tiny(family, folder, chat=True)
    else:
        words = build("byte_level")
        shape = {**ANY_SIZE, "vocab_size": len(words) + 11}
        shape |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        if family == "gemma3":  # with eyes, as from 4B on
            vision = {**ANY_SIZE, "image_size": 28, "patch_size": 14}
            shape = {"text_config": shape, "vision_config": vision}
        config = AutoConfig.for_model(family, **shape)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        words.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE + THINKING, encoding="utf-8")
    return folder


def save_rows(folder: Path, task: str, subset: str | None) -> Path:
    place = folder / (subset or "")
    place.mkdir(parents=True)
    for split in ("train", "validation"):
        line = json.dumps(ROWS[task]) + "\n"
        (place / f"{split}.jsonl").write_text(line * NUM_ROWS, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("family", "task", "backbone"),
    [
        ("qwen3", "squad", "qwen3-4b"),
        ("gemma3", "mctest", "gemma-3-4b"),
        ("llama", "dialogsum", "llama-3.2-1b"),
        ("smollm3", "iwslt17-en-de", "smollm3-3b"),
    ],
)
def test_two_steps_of_a_recipe(
    family: str,
    task: str,
    backbone: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    files = [RECIPES / f"tasks/{task}.toml", RECIPES / f"backbones/{backbone}.toml"]
    wanted = load_toml(PAPER, Recipe, files)
    assert not isinstance(wanted.data.train, list)
    model = save_backbone(family, tmp_path / "model")
    rows = save_rows(tmp_path / "rows", task, wanted.data.train.subset)
    here = tmp_path / "here.toml"
    here.write_text(
        f'data.train.hub = "{rows}"\ndata.valid.hub = "{rows}"\nbackbone.pretrained = "{model}"\n'
        'optimisation = { epochs = 1, batch_size = 4, precision = "fp32" }\n'
        'output = { eval_steps = 2, log_steps = 1, dtype = "float32" }\n'
    )
    out = tmp_path / "out"
    assert run("train", PAPER, *files, here, "--out", out).code == 0
    log = [json.loads(line) for line in (out / "training_log.jsonl").read_text().splitlines()]
    assert [entry["loss"] > 0 for entry in log if "loss" in entry] == [True, True]
    settings = load_settings(out)
    assert settings is not None and settings.early_end == (task in ("squad", "mctest"))
    assert wanted.instruction in settings.prompt.source_head
    thinks = "enable_thinking" in wanted.chat
    assert settings.prompt.target_head.endswith("<think></think>") == thinks
    load(out)
    if task == "mctest":
        place = rows / (wanted.data.train.subset or "") / "validation.jsonl"
        flags = ["--policy", "wait-k:3", "--task", "choice", "--limit", "1"]
        done = run(
            "evaluate",
            "--model",
            shortened(out),
            *flags,
            *("--source", place),
            "--out",
            tmp_path / "scores",
        )
        assert done.code == 0, done.err
        (scores,) = json.loads((tmp_path / "scores/scores.json").read_text())
        assert scores["accuracy"] in (0, 100)
