"""Broken weights are told in one line."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models import save_tiny

from proactivellm.modality.loading import load


def test_cut_off_weights_are_an_error_that_names_the_folder(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"cannot load a causal LM from '{tmp_path}'"):
        load(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, value: float) -> None:
    save_tiny("llama", tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = value
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"'model.layers.0.mlp.up_proj.weight' .* NaN or infinity"):
        load(tmp_path)


def test_a_precision_that_overflows_is_named(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] *= 1e30
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="float16.*--dtype float32"):
        load(tmp_path, dtype=torch.float16)
