"""Tests run tiny models: one thread is faster than two that wait for each other."""

import gc
import logging
import os
from collections.abc import Iterator

import pytest

# Before torch is there: tests fork, and threads of OpenMP would be missing in the children.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """The libraries' objects stay: looking through a million of them again and again costs 8 %."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(autouse=True, scope="session")
def logged_deprecations_are_errors() -> Iterator[None]:
    """Transformers deprecates with warnings, which the filters see, and with lines of its log."""
    warn = logging.Logger.warning

    def checked(logger: logging.Logger, message: object, *args: object, **kwargs: object) -> None:
        if logger.name.startswith("transformers") and "deprecated" in str(message):
            raise DeprecationWarning(f"{logger.name}: {message}")
        warn(logger, message, *args, **kwargs)  # type: ignore[arg-type]

    patch = pytest.MonkeyPatch()
    patch.setattr(logging.Logger, "warning", checked)  # `warning_once` ends here, too
    yield
    patch.undo()
