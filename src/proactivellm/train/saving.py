"""What goes wrong when weights are saved, in one line: libraries word a full disk differently."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def saving(folder: str | Path) -> Iterator[None]:
    """Names the folder that could not be saved.

    Args:
        folder: of the weights.

    Raises:
        ValueError: it could not be saved; what was saved before is as it was.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(getattr(error, "strerror", None) or error).strip().splitlines()[0]
        raise ValueError(
            f"{folder} cannot be saved ({reason}); what was saved before is still there: make room "
            "and give the same command again"
        ) from error
