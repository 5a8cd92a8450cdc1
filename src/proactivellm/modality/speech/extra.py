"""The packages of the extras `speech`, `microphone` and `video`, or the way to get them."""

import importlib
from typing import Any


def needed(name: str, extra: str = "speech") -> Any:
    """Imports a package that only an extra installs; ValueError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        what = "video" if extra == "video" else "audio"
        remedy = f"pip install 'proactivellm[{extra}]'"
        raise ValueError(f"{what} needs {name}, which is not installed: {remedy}") from None
