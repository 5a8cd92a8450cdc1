"""Training in two processes: one batch, one model, one writer; a run that was killed goes on."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.train.runs import SCRATCH, Asked, logged, make_recipe
from tests.train.two_processes import in_two_processes, shard_from_now_on

from proactivellm.train.checkpoints import last_checkpoint
from proactivellm.train.recipe import Recipe
from proactivellm.train.run import train
from proactivellm.train.trainer import StreamingTrainer

TEXT = SCRATCH.replace("attention_dropout = 0.1", "attention_dropout = 0.0")
TEXT = TEXT.replace("num_hidden_layers = 2", "num_hidden_layers = 1\ntie_word_embeddings = true")
TEXT = TEXT.replace("epochs = 2", "epochs = 1").replace("eval_steps = 4", "eval_steps = 0")
TEXT = TEXT.replace("concat = [1, 2]", "concat = [2, 2]").replace(
    "save_steps = 3", "save_steps = 2"
)
TWO = TEXT.replace("batch_size = 4", "batch_size = 2")


class Killed(Exception):
    """Stands for a kill of both processes."""


def note_writes(written: set[str]) -> None:
    """Note every file that this process opens for writing, renames or removes."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            writes = event in ("os.rename", "os.remove", "os.rmdir", "os.truncate")
        paths = arguments[:2] if event == "os.rename" else arguments[:1]
        if writes and all(isinstance(path, str | os.PathLike) for path in paths):
            written.update(map(os.path.realpath, paths))

    sys.addaudithook(hook)


@contextmanager
def killed() -> Iterator[None]:
    """A training inside is killed in its fourth step, after a checkpoint."""
    step_once = StreamingTrainer.training_step

    def deadly(self: StreamingTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3:
            raise Killed
        return step_once(self, *args, **kwargs)

    StreamingTrainer.training_step = deadly
    with pytest.raises(Killed):
        yield
    StreamingTrainer.training_step = step_once


def one_of_two(rank: int, folder: Path, recipe: Recipe) -> None:
    """Train, train again until a kill, and continue; then sharded. Tells what was written."""
    written: set[str] = set()
    note_writes(written)
    train(recipe, folder / "whole")
    with killed():
        train(recipe, folder / "killed")
    if rank == 0:
        shutil.copytree(folder / "killed", folder / "for one")
    train(recipe, folder / "killed")
    train(recipe, folder / "for two")
    with pytest.raises(KeyboardInterrupt):  # the second process alone is asked
        train(recipe, folder / "stopped", stops=Asked(3 if rank else 99))
    assert last_checkpoint(folder / "stopped") == str(folder / "stopped" / "checkpoint-3")
    train(recipe, folder / "stopped")
    shard_from_now_on()
    with killed():
        train(recipe, folder / "sharded")
    train(recipe, folder / "sharded")
    runs = tuple(
        f"{folder / name}/" for name in ("whole", "killed", "for two", "stopped", "sharded")
    )
    names = {os.path.basename(path) for path in written if path.startswith(runs)}
    (folder / f"{rank}.json").write_text(json.dumps(sorted(names)))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a run in one process with the same updates, and that of one killed."""
    folder = tmp_path_factory.mktemp("one")
    recipe = make_recipe(folder, TEXT)
    with killed():
        train(recipe, folder / "killed")
    return train(recipe, folder / "whole"), folder / "killed"


@pytest.fixture(scope="module")
def two(one, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[set[str]]]:
    """The folder of runs in two processes, and the files that each of them wrote."""
    folder = tmp_path_factory.mktemp("two")
    recipe = make_recipe(folder, TWO)
    shutil.copytree(one[1], folder / "for two")
    in_two_processes(one_of_two, folder, recipe)
    return folder, [set(json.loads((folder / f"{r}.json").read_text())) for r in (0, 1)]


def assert_alike(out: Path, expected: Path) -> None:
    """The same losses, gradient norms and weights, but for rounding."""
    ours, theirs = logged(out), logged(expected)
    assert len(ours) == len(theirs) == 5
    for entry, other in zip(ours, theirs, strict=True):
        assert entry == pytest.approx(other, rel=1e-5, abs=1.01e-4)  # parts: four digits
        assert entry["loss"] == pytest.approx(other["loss"], rel=1e-5)
    weights, wanted = (load_file(f / "model.safetensors") for f in (out, expected))
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-3, atol=1e-4)


def test_only_the_first_process_writes(two):
    _, (first, second) = two
    assert not second  # but for `rng_state_1.pth`, which Python does not see being written
    assert {"training_log.jsonl", "streaming.json", "trainer_state.json"} <= first


def test_two_processes_train_as_one_with_twice_the_batch(two, one):
    assert_alike(two[0] / "whole", one[0])


def test_two_processes_that_shard_train_as_one_though_stopped(two, one):
    out = two[0] / "sharded"
    assert_alike(out, one[0])
    configs = [json.loads((folder / "config.json").read_text()) for folder in (out, one[0])]
    assert configs[0] == configs[1]


def test_one_process_continues_what_two_began(two, one):
    recipe = make_recipe(two[0], TWO.replace("epochs = 1", "epochs = 1\ngradient_accumulation = 2"))
    out = train(recipe, two[0] / "for one")
    assert_alike(out, one[0])
    with pytest.raises(ValueError, match="optimiser that this run can load .optimizer.pt"):
        sharded = shutil.copytree(two[0] / "sharded", two[0] / "sharded too")
        (sharded / "training_log.jsonl").unlink()
        train(recipe, sharded)


def test_two_processes_continue_what_one_began(two, one):
    assert_alike(two[0] / "for two", one[0])


def test_two_processes_that_were_stopped_continue(two):
    folder, _ = two
    assert logged(folder / "killed") == logged(folder / "whole")
    ours, theirs = (load_file(folder / n / "model.safetensors") for n in ("killed", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_processes_stop_together_and_go_on(two):
    """After the update in which one of them was asked to."""
    folder, _ = two
    assert_alike(folder / "stopped", folder / "whole")
