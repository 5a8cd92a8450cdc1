"""The training of an adapter goes on from its weights, or says why it cannot."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.models import save_tiny
from tests.train.runs import PRETRAINED, make_recipe

from proactivellm.backbone.pretrained import load_pretrained
from proactivellm.train.build import add_adapters
from proactivellm.train.recipe import Lora
from proactivellm.train.run import train

ADAPTER = "adapter_model.safetensors"
LORA = "[lora]\nr = 4\nalpha = 8\nmerge = false\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A backbone, and the adapter of a first training of it."""
    folder = tmp_path_factory.mktemp("start")
    backbone = save_tiny("qwen3", folder / "backbone", chat=True)
    return backbone, train(make_recipe(folder, PRETRAINED + LORA, backbone), folder / "out")


def adapted(backbone: Path, **keys: object) -> torch.nn.Module:
    return add_adapters(load_pretrained(backbone)[0], Lora(**{"r": 4, "alpha": 8, **keys}))


def test_it_begins_with_the_weights_of_the_other_run(trained: tuple[Path, Path]) -> None:
    backbone, first = trained
    stored = load_file(first / ADAPTER)
    begun = adapted(backbone, start=str(first)).state_dict()
    for name, weight in stored.items():
        assert torch.equal(begun[name.replace(".weight", ".default.weight")], weight)
    assert any(weight.any() for name, weight in stored.items() if "lora_B" in name)


def test_a_run_goes_on_with_it(trained: tuple[Path, Path], tmp_path: Path) -> None:
    backbone, first = trained
    text = PRETRAINED + LORA + f'start = "{first}"\n'
    again = train(make_recipe(tmp_path, text, backbone), tmp_path / "out")
    before, after = (load_file(folder / ADAPTER) for folder in (first, again))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ValueError, match="would overwrite"):
        train(make_recipe(tmp_path, text, backbone), first)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"r": 2}, "has r = 4 and alpha = 8: give .lora. the same"),
        (
            {"target_modules": ["q_proj"]},
            "^cannot continue from [^ ]*: the model has no place for 24",
        ),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    trained: tuple[Path, Path], keys: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        adapted(trained[0], start=str(trained[1]), **keys)


def test_a_folder_without_an_adapter_is_refused(trained: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="no adapter in"):
        adapted(trained[0], start=str(trained[0]))
