"""A training folder belongs to its recipe, its data and its backbone."""

import errno
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models import save_tiny
from tests.train.runs import PRETRAINED, SCRATCH, make_recipe, write_pairs

from proactivellm.files.lock import locked
from proactivellm.files.toml import load_toml
from proactivellm.train.checkpoints import last_checkpoint
from proactivellm.train.recipe import Recipe
from proactivellm.train.run import train
from proactivellm.train.run_inputs import check_run
from proactivellm.train.trainer import StreamingTrainer

QUICK = SCRATCH.replace("epochs = 2", "epochs = 1").replace("eval_steps = 4\n", "")
Run = tuple[Path, Path, Recipe]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    torch.set_num_threads(1)
    recipe = make_recipe(folder, QUICK)
    return folder, train(recipe, folder / "out"), recipe


def contents(out: Path) -> dict[Path, tuple[bytes, int]]:
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in out.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def changed(folder: Path, old: str, new: str) -> Recipe:
    file = folder / "changed.toml"
    file.write_text((folder / "recipe.toml").read_text().replace(old, new))
    return load_toml(file, Recipe)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("epochs = 1", "epochs = 3", "recipe.optimisation.epochs was 1, and is 3 now"),
        ("concat = [1, 2]", "concat = [1, 1]", r"recipe.data.concat was \[1, 2\], and is \[1, 1\]"),
        ("hidden_size = 32", "hidden_size = 16", "recipe.backbone.config.hidden_size was 32"),
        ("limit = 6", "limit = 5", "valid_data was"),
    ],
)
def test_another_recipe_is_another_run(done: Run, old: str, new: str, named: str) -> None:
    folder, out, _ = done
    before = contents(out)
    with pytest.raises(ValueError, match=f"{out} holds another run .*{named}.*another --out"):
        train(changed(folder, old, new), out)
    assert contents(out) == before


def test_another_number_of_processes_is_another_run(
    done: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, recipe = done
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="processes was 1, and is 2 now"):
        train(recipe, out)


def test_other_data_at_the_same_path(done: Run, tmp_path: Path) -> None:
    folder, out, recipe = done
    pairs = folder / "pairs.tsv"
    before = pairs.read_text(encoding="utf-8")
    pairs.write_text(before.replace("Hund", "Haus"), encoding="utf-8")
    with pytest.raises(ValueError, match="train_data was .*, and is .* now"):
        train(recipe, out)
    pairs.write_text(before, encoding="utf-8")
    elsewhere = changed(folder, str(pairs), str(write_pairs(tmp_path)))
    was = contents(out)
    train(elsewhere, out)  # the same data, wherever it lies
    train(changed(folder, "save_steps = 3", "save_steps = 2"), out)  # only looked at more often
    assert contents(out) == was


def test_a_folder_of_an_earlier_release_is_not_continued(done: Run, tmp_path: Path) -> None:
    _, out, recipe = done
    shutil.copytree(out, tmp_path / "old")
    (tmp_path / "old" / "training.json").unlink()
    with pytest.raises(ValueError, match="holds a run without training.json"):
        train(recipe, tmp_path / "old")
    shutil.rmtree(tmp_path / "old")
    with locked(tmp_path / "old"), pytest.raises(ValueError, match="old is in use"):
        train(recipe, tmp_path / "old")


def test_keys_that_came_later_have_their_defaults(tmp_path: Path) -> None:
    recipe, out = make_recipe(tmp_path, SCRATCH), tmp_path / "out"
    check_run(recipe, ([], []), out, continues=False)
    note = json.loads((out / "training.json").read_text())
    for table, key in (
        (note["recipe"], "distillation"),
        (note["recipe"]["objective"], "logits_mib"),
    ):
        del table[key]
    (out / "training.json").write_text(json.dumps(note))
    check_run(recipe, ([], []), out, continues=True)
    objective = recipe.objective.model_copy(update={"logits_mib": 77})
    with pytest.raises(ValueError, match="objective.logits_mib was not noted by the release"):
        asked = recipe.model_copy(update={"objective": objective})
        check_run(asked, ([], []), out, continues=True)
    note["recipe"]["distillation"] = {"loss": "forward"}
    (out / "training.json").write_text(json.dumps(note))
    with pytest.raises(ValueError, match="distillation was .*, and is None now"):
        check_run(recipe, ([], []), out, continues=True)


def test_a_finished_run_may_be_read_while_others_read_it(done: Run) -> None:
    _, out, recipe = done
    with locked(out):
        train(recipe, out)


def test_another_backbone_at_the_same_path(tmp_path: Path) -> None:
    backbone = save_tiny("qwen2", tmp_path / "backbone", chat=True)
    recipe, out = make_recipe(tmp_path, PRETRAINED, backbone), tmp_path / "out"
    (tmp_path / "link").symlink_to(backbone)
    with pytest.raises(ValueError, match="link would overwrite .*backbone, which the recipe"):
        train(recipe, tmp_path / "link")
    check_run(recipe, ([], []), out, continues=False)
    (backbone / "README.md").write_text("about it")
    check_run(recipe, ([], []), out, continues=True)
    settings = json.loads((backbone / "config.json").read_text()) | {"rms_norm_eps": 0.5}
    (backbone / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"backbone was [0-9a-f]{12}, and is [0-9a-f]{12} now"):
        check_run(recipe, ([], []), out, continues=True)


def test_a_full_disk_leaves_the_model_that_was_there(
    done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, recipe = done
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "training_log.jsonl").unlink()  # as if it were to be saved again
    before = contents(tmp_path / "out")

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("proactivellm.backbone.prompt.StreamSettings.save", full_disk)
    with pytest.raises(ValueError, match="out cannot be saved .No space left on device.; what was"):
        train(recipe, tmp_path / "out")
    after = contents(tmp_path / "out")
    assert {path: after[path] for path in before} == before and len(after) == len(before)


def test_a_disk_that_fills_up_costs_no_checkpoint(done: Run, tmp_path: Path) -> None:
    """A real limit of the system, met in the middle of the weights of the second checkpoint."""
    _, _, recipe = done
    out = tmp_path / "out"
    save, limits = StreamingTrainer._save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(self: StreamingTrainer, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        save(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamingTrainer, "_save", limited)
        try:
            with pytest.raises(ValueError, match="checkpoint-6 cannot be saved .*make room"):
                train(recipe, out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert last_checkpoint(out) == str(out / "checkpoint-3")
    train(recipe, out)
    assert contents(out)[out / "model.safetensors"][0] == (
        (done[1] / "model.safetensors").read_bytes()
    )
