"""Weights that are sharded over two processes (FSDP): they are whole only inside the forward."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tests.train.learners import heard_and_read, make_listener
from tests.train.runs import SCRATCH, make_recipe
from tests.train.test_run import trainer_of
from tests.train.two_processes import in_two_processes
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.train.learner import Learner
from proactivellm.train.saving import load_objectives, save_checkpoint
from proactivellm.train.views import collate

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(learner: Learner) -> Learner:
    """Shards each layer of the LM by itself, and all the rest together."""
    mesh = init_device_mesh("cpu", (2,))
    for layer in learner.model.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(learner, mesh=mesh)


def compare_steps(rank: int, folder: Path) -> None:
    plain, sharded = make_listener(kl_weight=0.5), shard(make_listener(kl_weight=0.5))
    batches = [collate(heard_and_read(plain, seed)) for seed in (0, 1)]
    ours = sharded(**batches[rank])
    ours["loss"].backward()
    outputs = [plain(**batch) for batch in batches]
    (sum(output["loss"] for output in outputs) / 2).backward()
    assert torch.equal(ours["loss"], outputs[rank]["loss"])
    assert torch.equal(ours["parts"], outputs[rank]["parts"]) and (ours["parts"] > 0.01).all()
    for parameter, expected in zip(sharded.parameters(), plain.parameters(), strict=True):
        assert (parameter.grad is None) == (not expected.requires_grad)
        if expected.requires_grad:
            gradient = parameter.grad.full_tensor()
            torch.testing.assert_close(gradient, expected.grad, rtol=1e-4, atol=1e-5)
    with pytest.raises((RuntimeError, AssertionError, ValueError)):  # what must not be done
        sharded.model.get_output_embeddings()(torch.zeros(1, plain.model.config.hidden_size))

    weights = get_model_state_dict(sharded, options=WHOLE)
    if rank == 0:
        settings, tokenizer = trainer_parts(folder)
        save_checkpoint(sharded, (tokenizer, settings), folder / "saved", weights)
        front_end = SpeechFrontEnd.load(folder / "saved", plain.model.config.hidden_size)
        expected = plain.front_end.state_dict()
        stored = front_end.state_dict()
        assert all(torch.equal(stored[name], value) for name, value in expected.items())
        kept = {k: v.clone() for k, v in plain.objectives["ctc"].state_dict().items()}
        torch.nn.init.zeros_(plain.objectives["ctc"].weight)
        load_objectives(plain, folder / "saved", required=True)
        assert all(torch.equal(plain.objectives["ctc"].state_dict()[k], v) for k, v in kept.items())


def trainer_parts(folder: Path):
    trainer = trainer_of(make_recipe(folder, SCRATCH), folder / "run")
    return trainer.settings, trainer.tokenizer


def compare_evaluations(rank: int, folder: Path) -> None:
    mine = folder / str(rank)
    mine.mkdir()
    torch.manual_seed(0)
    trainer = trainer_of(make_recipe(mine, SCRATCH), mine / "out")
    expected = trainer.evaluate()
    trainer.model = trainer.model_wrapped = shard(trainer.model)
    assert trainer.evaluate() == expected and expected["eval_nll_offline"] > 1


def one_of_two(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", rank=rank, world_size=2)
    compare_steps(rank, folder)
    compare_evaluations(rank, folder)
    (folder / f"{rank}.json").write_text(json.dumps("done"))


def test_a_sharded_learner_is_the_plain_one(tmp_path):
    in_two_processes(one_of_two, tmp_path)
    assert {file.name for file in tmp_path.glob("*.json")} == {"0.json", "1.json"}
