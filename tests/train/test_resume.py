"""A run that was killed and started again is the run that was not killed, to the last bit."""

import multiprocessing
import os
import random
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.models import save_tiny
from tests.train.runs import PRETRAINED, SCRATCH, Asked, logged, make_recipe, write_recipe

from proactivellm.cli import main
from proactivellm.files.toml import load_toml
from proactivellm.train.checkpoints import last_checkpoint
from proactivellm.train.recipe import Recipe
from proactivellm.train.run import train
from proactivellm.train.samples import PackedDataset
from proactivellm.train.trainer import StreamingTrainer

LORA = PRETRAINED + "[lora]\nr = 4\nalpha = 8\ndropout = 0.1\n"


def train_until_killed(recipe: Recipe, out: Path, fatal: int) -> None:
    """Kills its own process, not to be caught, when a sample of the training data is asked for."""
    get = PackedDataset.__getitem__

    def deadly(self: PackedDataset, index: int) -> Any:
        if index == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return get(self, index)

    PackedDataset.__getitem__ = deadly
    train(recipe, out)


class Killed(Exception):
    """Stands for a kill inside this process."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A recipe from scratch (with dropout and evaluation) and its undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recipe = make_recipe(folder, SCRATCH)
    out = train(recipe, folder / "out")
    torch.set_num_threads(threads)
    assert [e["step"] for e in logged(out) if "loss" in e] == list(range(1, 13))
    return recipe, out


def assert_same_run(out: Path, whole: Path) -> None:
    assert logged(out) == logged(whole)  # floats as they were computed, not rounded
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_killed_by_the_system_at_a_random_step(whole, tmp_path):
    recipe_file = write_recipe(tmp_path, SCRATCH)
    assert load_toml(recipe_file, Recipe).model_dump(exclude={"data"}) == whole[0].model_dump(
        exclude={"data"}
    )
    # A sample of batch 5 to 12 (from 1), which is fetched during the step before: there is a
    # checkpoint, of step 3, 6 or 9.
    fatal = random.SystemRandom().randrange(4 * 4, 4 * 12)
    out = tmp_path / "out"
    context = multiprocessing.get_context("fork")  # a new interpreter would take its time
    arguments = (load_toml(recipe_file, Recipe), out, fatal)
    process = context.Process(target=train_until_killed, args=arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks, where there are threads
        process.start()
    process.join(timeout=240)
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "training_log.jsonl").exists()
    assert last_checkpoint(out) is not None, f"killed at sample {fatal}"
    train(load_toml(recipe_file, Recipe), out)
    assert_same_run(out, whole[1])


def test_batches_prepared_by_other_processes_are_the_same(whole, tmp_path):
    recipe = whole[0]
    data = recipe.data.model_copy(update={"workers": 2})
    out = train(recipe.model_copy(update={"data": data}), tmp_path / "out")
    assert_same_run(out, whole[1])


@pytest.mark.parametrize("step", [2, 3, 12])
def test_stopped_at_a_step(whole, tmp_path, monkeypatch, step):
    recipe, reference = whole
    step_once = StreamingTrainer.training_step

    def deadly(self, *args, **kwargs):
        if self.state.global_step == step - 1:
            raise Killed
        return step_once(self, *args, **kwargs)

    monkeypatch.setattr(StreamingTrainer, "training_step", deadly)
    with pytest.raises(Killed):
        train(recipe, tmp_path)
    monkeypatch.undo()
    assert (last_checkpoint(tmp_path) is None) == (step <= 3)
    train(recipe, tmp_path)
    assert_same_run(tmp_path, reference)


# It looks after each update, and after the evaluations of updates 4 and 8.
@pytest.mark.parametrize(("looks", "update"), [(1, 1), (4, 4), (13, 11)])
def test_asked_to_stop_it_saves_the_update_that_it_is_at(whole, tmp_path, looks, update):
    recipe, reference = whole
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, stops=Asked(looks))
    assert last_checkpoint(tmp_path) == str(tmp_path / f"checkpoint-{update}")
    assert not (tmp_path / "training_log.jsonl").exists()
    train(recipe, tmp_path)
    assert_same_run(tmp_path, reference)


def test_asked_in_an_evaluation_it_goes_no_further(whole, tmp_path, monkeypatch):
    recipe, reference = whole
    stops, evaluate = Asked(99), StreamingTrainer.evaluate

    def asked(self, *args, **kwargs):
        stops.left = 0
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(StreamingTrainer, "evaluate", asked)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, stops=stops)
    monkeypatch.undo()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    train(recipe, tmp_path)
    assert_same_run(tmp_path, reference)


def test_asked_in_its_last_update_it_is_done(whole, tmp_path):
    train(whole[0], tmp_path, stops=Asked(14))
    assert_same_run(tmp_path, whole[1])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_stops_in_order(whole, tmp_path, monkeypatch, capfd, number, workers):
    """Also where all processes of it are told, as those of a terminal are."""
    step_once = StreamingTrainer.training_step

    def signalled(self, *args, **kwargs):
        if self.state.global_step in (4, 8):
            told = multiprocessing.active_children()
            assert len(told) == workers
            for process in told:
                os.kill(process.pid, number)
            signal.raise_signal(number)
            for process in told:
                process.join(0.2)
        return step_once(self, *args, **kwargs)

    text = SCRATCH.replace("[data]", f"[data]\nworkers = {workers}")
    words = ["train", str(write_recipe(tmp_path, text)), "--out", str(tmp_path / "out")]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(StreamingTrainer, "training_step", signalled)
        main(words)
    assert ended.value.code == 128 + number
    told = capfd.readouterr().err
    assert "once more ends it at once" in told and "interrupted: checkpoints stay" in told
    assert last_checkpoint(tmp_path / "out") == str(tmp_path / "out" / "checkpoint-5")
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(StreamingTrainer, "training_step", signalled)
        main(words)  # which has another loader of its batches
    assert last_checkpoint(tmp_path / "out") == str(tmp_path / "out" / "checkpoint-9")
    with pytest.raises(SystemExit) as ended:
        main(words)
    signal.signal(signal.SIGINT, before)
    assert ended.value.code == 0
    assert_same_run(tmp_path / "out", whole[1])


def test_killed_while_saving_goes_back_to_the_last_whole_checkpoint(whole, tmp_path, monkeypatch):
    recipe, reference = whole
    save = StreamingTrainer._save_optimizer_and_scheduler

    def deadly(self, folder):
        if self.state.global_step == 6:
            raise Killed
        save(self, folder)

    monkeypatch.setattr(StreamingTrainer, "_save_optimizer_and_scheduler", deadly)
    with pytest.raises(Killed):
        train(recipe, tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "checkpoint-6" / "model.safetensors").exists()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    # A kill in the middle of the last file is no better than one before it.
    state = (tmp_path / "checkpoint-3" / "trainer_state.json").read_bytes()
    (tmp_path / "checkpoint-6" / "trainer_state.json").write_bytes(state[: len(state) // 2])
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    train(recipe, tmp_path)
    assert_same_run(tmp_path, reference)


def test_a_finished_run_is_left_as_it_is(whole):
    recipe, reference = whole
    before = (reference / "model.safetensors").read_bytes(), logged(reference)
    train(recipe, reference)
    assert ((reference / "model.safetensors").read_bytes(), logged(reference)) == before


def test_adapters_of_a_pretrained_backbone_resume_too(tmp_path, monkeypatch):
    recipe = make_recipe(tmp_path, LORA, save_tiny("qwen2", tmp_path / "backbone", chat=True))
    reference = train(recipe, tmp_path / "whole")
    assert len([entry for entry in logged(reference) if "loss" in entry]) == 5
    save = StreamingTrainer.save_model

    def deadly(self, folder=None, _internal_call=False):
        if self.state.global_step == 4:
            raise Killed
        save(self, folder, _internal_call)

    monkeypatch.setattr(StreamingTrainer, "save_model", deadly)
    with pytest.raises(Killed):
        train(recipe, tmp_path / "out")
    monkeypatch.undo()

    assert (tmp_path / "out" / "checkpoint-2" / "adapter_model.safetensors").exists()
    train(recipe, tmp_path / "out")
    assert_same_run(tmp_path / "out", reference)
