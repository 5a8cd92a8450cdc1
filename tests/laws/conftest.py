"""Tiny random models on disk, one per family, saved once each."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.models import save_tiny


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a family's model with a tokenizer of `tests.tokenizers`."""

    @functools.cache
    def folder(family: str, tokenizer: str = "byte_level") -> Path:
        return save_tiny(family, tmp_path_factory.mktemp(family), tokenizer)

    return folder
