"""Broken weights are told in one line."""

from pathlib import Path

import pytest
from tests.models import save_tiny

from proactivellm.modality.loading import load


def test_cut_off_weights_are_an_error_that_names_the_folder(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"cannot load a causal LM from '{tmp_path}'"):
        load(tmp_path)
