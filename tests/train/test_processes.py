"""Training in two processes: one batch, one model, one writer; a run that was killed goes on."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.train.runs import SCRATCH, logged, make_recipe
from tests.train.two_processes import in_two_processes

from proactivellm.train.recipe import Recipe
from proactivellm.train.run import train
from proactivellm.train.trainer import StreamingTrainer

TEXT = SCRATCH.replace("attention_dropout = 0.1", "attention_dropout = 0.0")
TEXT = TEXT.replace("num_hidden_layers = 2", "num_hidden_layers = 1")
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


def one_of_two(rank: int, folder: Path, recipe: Recipe) -> None:
    """Train, train again until a kill, and continue; tells what was written."""
    written: set[str] = set()
    note_writes(written)
    train(recipe, folder / "whole")
    step_once = StreamingTrainer.training_step

    def deadly(self: StreamingTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3:
            raise Killed
        return step_once(self, *args, **kwargs)

    StreamingTrainer.training_step = deadly
    with pytest.raises(Killed):
        train(recipe, folder / "killed")
    StreamingTrainer.training_step = step_once
    train(recipe, folder / "killed")
    runs = tuple(str(folder / name) for name in ("whole", "killed"))
    names = {os.path.basename(path) for path in written if path.startswith(runs)}
    (folder / f"{rank}.json").write_text(json.dumps(sorted(names)))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[set[str]]]:
    """The folder of a run in two processes, and the files that each of them wrote."""
    folder = tmp_path_factory.mktemp("two")
    recipe = make_recipe(folder, TWO)
    in_two_processes(one_of_two, folder, recipe)
    return folder, [set(json.loads((folder / f"{r}.json").read_text())) for r in (0, 1)]


def test_only_the_first_process_writes(two):
    _, (first, second) = two
    assert not second  # but for `rng_state_1.pth`, which Python does not see being written
    assert {"training_log.jsonl", "streaming.json", "trainer_state.json"} <= first


def test_two_processes_train_as_one_with_twice_the_batch(two, tmp_path):
    one = train(make_recipe(tmp_path, TEXT), tmp_path / "out")
    ours, theirs = logged(two[0] / "whole"), logged(one)
    assert len(ours) == len(theirs)
    for entry, expected in zip(ours, theirs, strict=True):
        assert entry == pytest.approx(expected, rel=1e-3, abs=2e-4)  # parts: four digits
    weights, expected = (load_file(f / "model.safetensors") for f in (two[0] / "whole", one))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)


def test_two_processes_that_were_stopped_continue(two):
    folder, _ = two
    assert logged(folder / "killed") == logged(folder / "whole")
    ours, theirs = (load_file(folder / n / "model.safetensors") for n in ("killed", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
