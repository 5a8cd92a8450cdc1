"""Runs of models that think while they read: tables alone tell streaming from batch thinking."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.models import save_tiny
from tests.train.runs import PRETRAINED, SCRATCH, logged, make_recipe

from proactivellm.backbone.prompt import load_settings
from proactivellm.backbone.thinking import Thinking
from proactivellm.files.toml import load_toml
from proactivellm.modality.loading import load
from proactivellm.tasks.reasoning.problem import write_problems
from proactivellm.tasks.reasoning.running import LEVELS, draw_running
from proactivellm.train.arguments import make_arguments
from proactivellm.train.assembly import make_trainer
from proactivellm.train.build import make_backbone, make_settings
from proactivellm.train.recipe import Recipe
from proactivellm.train.run import read_items, train
from proactivellm.train.trainer import StreamingTrainer

THINKS = "\n[thinking]\nwait_k = [1, 2]\ndepth = [1, 3]\n"
STREAMING = THINKS + "[objective]\nbatch_weight = 0.0\nkl_weight = 0.0\n"
BATCH = THINKS + "[objective]\nmslm_weight = 0.0\nkl_weight = 0.0\nnum_partial = 0\n[stream]\n"
BATCH += 'layout = "interleaved-thoughts"\n'
LORA = "[lora]\nr = 4\nalpha = 8\n"


class Killed(Exception):
    """Stands for a kill inside this process."""


def recipe_of(folder: Path, text: str, backbone: Path | None = None, count: int = 16) -> Recipe:
    """A recipe whose data are generated problems."""
    problems = draw_running(LEVELS["easy"], count, seed=1)
    write_problems(folder / "problems.jsonl", problems)
    text = text.replace('tsv = "PAIRS"', f'reasoning = "{folder / "problems.jsonl"}"')
    text = text.replace("concat = [1, 2]", "").replace("epochs = 2", "epochs = 1")
    return make_recipe(folder, text, backbone)


def trainer_of(recipe: Recipe, folder: Path) -> StreamingTrainer:
    items = read_items(recipe.data.train)
    model, tokenizer = make_backbone(recipe, items)
    settings = make_settings(recipe, tokenizer)
    return make_trainer(recipe, folder, (items, items[:2]), (model, tokenizer, settings))


def test_a_model_that_thinks_is_trained_from_scratch(tmp_path: Path) -> None:
    out = train(recipe_of(tmp_path, SCRATCH + STREAMING), tmp_path / "out")
    losses = [entry["loss_mslm"] for entry in logged(out) if "loss" in entry]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert {"eval_nll_wait-1", "eval_nll_offline"} < {k for entry in logged(out) for k in entry}
    settings = load_settings(out)
    assert settings and (settings.layout, settings.thinking) == ("thoughts", Thinking())
    assert load(out).thinking is not None
    other = draw_running(LEVELS["easy"], 16, seed=1)
    write_problems(tmp_path / "problems.jsonl", [*other[:-1], other[-1].at_depth(1)])
    changed = load_toml(tmp_path / "recipe.toml", Recipe)
    with pytest.raises(ValueError, match="train_data"):
        train(changed, out)
    with pytest.raises(ValueError, match="thinks while it reads: give the recipe .thinking."):
        make_backbone(recipe_of(tmp_path, PRETRAINED.replace("instruction", "#"), out), [])


def test_losses_over_a_part_of_the_vocabulary_know_every_token_of_a_thought(tmp_path: Path) -> None:
    """Controls included; the loss is about that over all tokens."""
    scratch = SCRATCH.replace("attention_dropout = 0.1\n", "")
    whole = trainer_of(recipe_of(tmp_path, scratch + STREAMING), tmp_path / "a")
    text = STREAMING.replace("[objective]", "[objective]\nsampled_softmax = 64")
    part = trainer_of(recipe_of(tmp_path, scratch + text), tmp_path / "b")
    part.learner.load_state_dict(whole.learner.state_dict())
    thinking = part.encoder.encoder.thinking  # type: ignore[attr-defined]
    assert part.learner.softmax is not None
    assert {*thinking.all} <= {*part.learner.softmax.taught.tolist()}
    losses = []
    for trainer in (whole, part):
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
        with torch.no_grad():  # tokens are drawn anew each time, which moves a loss by a percent
            losses.append(np.mean([float(trainer.learner(**batch)["loss"]) for _ in range(12)]))
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]


def test_samples_have_the_views_that_the_tables_ask_for(tmp_path: Path) -> None:
    """Batch thinking is the full view in the order of an ordinary text; depth and k are drawn."""
    streaming = trainer_of(recipe_of(tmp_path, SCRATCH + STREAMING), tmp_path / "s")
    batch = trainer_of(recipe_of(tmp_path, SCRATCH + BATCH), tmp_path / "b")
    thinking = streaming.encoder.encoder.thinking  # type: ignore[attr-defined]
    stages, offered = set(), set()
    for index in range(16):
        packed = streaming.train_dataset[index]
        again = streaming.train_dataset[index]
        assert packed == again and set(packed.view) == {0, -1}
        stages.add(sum(label in thinking.stages for label in packed.label))
        first = packed.label.index(next(label for label in packed.label if label >= 0))
        offered.add(packed.arrival[first] // (len(streaming.learner.layout.groups) << 32))
        whole = batch.train_dataset[index]
        order = sorted(range(len(whole.label)), key=whole.arrival.__getitem__)
        assert [whole.position[i] for i in order] == list(range(len(order)))
        written = np.array([whole.label[i] >= 0 for i in order])
        assert written.argmax() > len(order) - written.sum() - 3, "all is read before a thought"
    assert (stages, offered) == ({0, 1, 2}, {1, 2})


def test_adapters_learn_the_rows_of_all_control_tokens_and_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a layer that feeds tokens and one that predicts them; all other rows stay."""
    backbone = save_tiny("llama", tmp_path / "backbone", chat=True)
    text = PRETRAINED.replace("save_steps = 2", "save_steps = 1") + STREAMING + LORA
    recipe = recipe_of(tmp_path, text, backbone)
    whole = train(recipe, tmp_path / "whole")
    save = StreamingTrainer.save_model

    def deadly(self: StreamingTrainer, *args: object, **kwargs: object) -> None:
        if self.state.global_step == 2:
            raise Killed
        save(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(StreamingTrainer, "save_model", deadly)
    with pytest.raises(Killed):
        train(recipe, tmp_path / "out")
    monkeypatch.undo()
    resumed = load_file(train(recipe, tmp_path / "out") / "model.safetensors")
    before, after = (load_file(each / "model.safetensors") for each in (backbone, whole))
    assert all(torch.equal(resumed[name], after[name]) for name in after)
    ids = load(whole).thinking
    assert ids is not None
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        old, new = before[name], after[name]
        moved = (new[: len(old)] != old).any(1).nonzero().flatten().tolist()
        assert set(moved) <= set(ids.all), name
        assert len({tuple(row) for row in new[list(ids.all)].tolist()}) == len(ids.all), name


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("depth = [1, 3]", "depth = [1, 4]"), "depth: 4, and with these stages the deepest is 3"),
        (("wait_k = [1, 2]", "wait_k = [2, 1]"), "wait_k"),
        (("[thinking]", "[stream.thinking]"), "stream.thinking"),
        (("[backbone]", "[stream]\nlayout = 'grouped'\n[backbone]"), "grouped has no thoughts"),
        (("[objective]", "[objective]\nprofile = 'uniform'"), "profile is of words"),
        (("[objective]", "[objective]\ncontrol_weight = 1.0"), "control_weight has to be 0"),
        (("[data]", "[data]\nconcat = [1, 2]"), "one problem in a sample"),
        (("reasoning =", "tsv ="), "learns from problems"),
    ],
)
def test_what_does_not_go_with_thinking_is_refused(
    tmp_path: Path, change: tuple[str, str], error: str
) -> None:
    recipe_of(tmp_path, SCRATCH + STREAMING)
    text = (tmp_path / "recipe.toml").read_text()
    assert change[0] in text
    (tmp_path / "recipe.toml").write_text(text.replace(*change))
    with pytest.raises(ValueError, match=error):
        load_toml(tmp_path / "recipe.toml", Recipe)


def test_problems_that_nobody_thought_through_are_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, SCRATCH + STREAMING)
    problems = draw_running(LEVELS["easy"], 16, seed=1)
    bare = problems[3].model_copy(update={"thoughts": ()})
    write_problems(tmp_path / "problems.jsonl", [*problems[:3], bare, *problems[4:]])
    with pytest.raises(ValueError, match=f"problem '{bare.id}': there are no thoughts"):
        trainer_of(recipe, tmp_path / "out")


def test_a_skipped_thought_counts_as_much_as_is_said(tmp_path: Path) -> None:
    """The loss is a sum over rows: the weight of some of them moves it on a straight line."""
    scratch, losses = SCRATCH.replace("attention_dropout = 0.1\n", ""), list[float]()
    trainers = []
    for weight in (1.0, 0.5, 0.0):
        text = STREAMING.replace("[thinking]", f"[thinking]\nskip_weight = {weight}")
        trainers.append(trainer_of(recipe_of(tmp_path, scratch + text), tmp_path / str(weight)))
        trainers[-1].learner.load_state_dict(trainers[0].learner.state_dict())
        batch = trainers[0].data_collator([trainers[0].train_dataset[i] for i in range(4)])
        losses.append(float(trainers[-1].learner(**batch)["loss"].detach()))
    assert losses[0] > losses[1] > losses[2] > 0
    assert losses[0] - losses[1] == pytest.approx(losses[1] - losses[2], rel=1e-3)
    with pytest.raises(ValueError, match="skip_weight does not go with sampled_softmax"):
        text = text.replace("[objective]", "[objective]\nsampled_softmax = 64")
        recipe_of(tmp_path, scratch + text)


# `counting` learns from videos: tests/train/test_watching.py.
OF_TEXTS = [each for each in Path("recipes/thinking").glob("*.toml") if each.stem != "counting"]


@pytest.mark.parametrize("file", sorted(OF_TEXTS), ids=str)
def test_the_recipes_in_the_repository_can_be_built(file: Path, tmp_path: Path) -> None:
    recipe = load_toml(file, Recipe)
    make_arguments(recipe, tmp_path)
    if recipe.backbone.pretrained:  # whose weights may lie elsewhere
        folder = Path(recipe.backbone.pretrained)
        has = load(folder).layout if folder.is_dir() else None
        layout = recipe.stream.make_layout() if recipe.stream else has
        assert layout and layout.name == "thoughts"
        return
    problems = draw_running(LEVELS["easy"], 32, seed=1)
    items = [problem.item() for problem in problems]
    small = recipe.model_copy(update={"output": recipe.output.model_copy(update={"eval_steps": 0})})
    model, tokenizer = make_backbone(recipe, items)
    make_trainer(small, tmp_path, (items, []), (model, tokenizer, make_settings(recipe, tokenizer)))
    assert 5e5 < sum(weight.numel() for weight in model.parameters()) < 7e5
