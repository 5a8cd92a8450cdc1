"""Models for the tests of sessions and engines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.families import OBEYING, save_random
from tests.laws import streams
from tests.laws.streams import MAX_TOKENS, Recorder
from tests.models import save_tiny


@pytest.fixture(scope="session")
def load_endless(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recorder]:
    """Makes models whose targets never end by themselves: they are cut."""
    folders: dict[str, Path] = {}

    def make(family: str = "qwen3", **settings: Any) -> Recorder:
        if family not in folders:
            folder = tmp_path_factory.mktemp(family)
            if family in OBEYING:
                folders[family] = save_random(family, OBEYING[family], folder)
            else:
                folders[family] = save_tiny(family, folder, "word_piece")
        max_tokens = settings.pop("max_tokens", MAX_TOKENS)
        model = streams.load(folders[family], **settings)
        assert model.model.generation_config is not None
        model.model.generation_config.max_new_tokens = max_tokens
        model.model.generation_config.eos_token_id = []
        return model

    return make
