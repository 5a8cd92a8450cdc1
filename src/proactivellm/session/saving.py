"""Streams in files: what an engine tells of a lane, written and read again."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from proactivellm.core.positions import Grid, Reached, Run
from proactivellm.files.replace import replacing
from proactivellm.session.window import NotKept

# What torch and this library raise on a file that is not theirs.
LOAD_ERRORS = (
    *(pickle.UnpicklingError, OSError, EOFError),
    *(LookupError, RuntimeError, TypeError, ValueError),
)


def save_snapshot(snapshot: dict[str, Any], path: str | Path) -> None:
    """Write what `Engine.snapshot` tells to a file; model and policy are not part of it."""
    with replacing(path) as new, open(new, "wb") as file:  # torch takes not every name
        torch.save(snapshot, file)


def load_snapshot(
    path: str | Path, device: torch.device, use: Callable[[dict[str, Any]], None]
) -> None:
    """Read a file of `save_snapshot`, and hand it over; ValueError if `use` cannot take it."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with torch.serialization.safe_globals([Grid, Reached, Run]):
            use(torch.load(path, map_location=device, weights_only=True))
    except NotKept as error:
        raise ValueError(f"{path}: {error}") from error
    except LOAD_ERRORS as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{path} holds no session of this model ({reason})") from error
