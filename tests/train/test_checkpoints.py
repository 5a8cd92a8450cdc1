"""A checkpoint that is cut, or lacks a part, is not continued with random weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.backbone import broken
from tests.models import save_tiny, tiny_model
from torch import Tensor, nn

from proactivellm.train.build import add_adapters
from proactivellm.train.checkpoints import load_weights
from proactivellm.train.recipe import Lora


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("qwen3", tmp_path_factory.mktemp("checkpoint") / "checkpoint-1")


def same_shape(checkpoint: Path, seed: int) -> nn.Module:
    size = load_file(checkpoint / broken.WEIGHTS)["model.embed_tokens.weight"].shape[0]
    return tiny_model("qwen3", size, seed=seed)


def test_all_weights_are_those_of_the_checkpoint(checkpoint: Path) -> None:
    model = same_shape(checkpoint, seed=1)
    load_weights(model, str(checkpoint))
    stored = load_file(checkpoint / broken.WEIGHTS)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in stored.items())


@pytest.mark.parametrize(
    "name", ["weights missing", "weights too many", "weights of another shape", "weights cut"]
)
def test_what_is_wrong_is_told(checkpoint: Path, tmp_path: Path, name: str) -> None:
    change, told = broken.BROKEN[name]
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    change(tmp_path)
    with pytest.raises(ValueError, match=f"^cannot continue from {tmp_path}: (?!cannot).*{told}"):
        load_weights(same_shape(checkpoint, seed=1), str(tmp_path))


class TestAdapters:
    @pytest.fixture
    def adapted(self, checkpoint: Path, tmp_path: Path) -> nn.Module:
        """A model with adapters, saved in `tmp_path`."""
        model = add_adapters(same_shape(checkpoint, seed=1), Lora(r=2, target_modules=["q_proj"]))
        model.save_pretrained(tmp_path)
        return model

    @staticmethod
    def change(folder: Path, without: str = "", **more: Tensor) -> None:
        file = folder / "adapter_model.safetensors"
        kept = {n: w for n, w in load_file(file).items() if not without or without not in n}
        save_file(kept | more, file)

    def test_they_are_those_of_the_checkpoint(self, adapted: nn.Module, tmp_path: Path) -> None:
        before = {n: w.clone() for n, w in adapted.state_dict().items() if "lora" in n}
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                weight += "lora" in name
        load_weights(adapted, str(tmp_path))
        assert all(torch.equal(adapted.state_dict()[name], before[name]) for name in before)

    def test_what_is_wrong_is_told(self, adapted: nn.Module, tmp_path: Path) -> None:
        self.change(tmp_path, without="layers.1.self_attn.q_proj.lora_A")
        with pytest.raises(ValueError, match=r"lack 1 weight \(.*layers.1.self_attn.q_proj.lora_A"):
            load_weights(adapted, str(tmp_path))
        self.change(tmp_path, without="lora", other=torch.ones(1))
        with pytest.raises(ValueError, match=r"lack 4 weights .*no place for 1 weight \(other\)"):
            load_weights(adapted, str(tmp_path))
