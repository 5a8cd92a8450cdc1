"""The user's cache: models that were pulled, and GGUF files unpacked. Nothing heavy is imported."""

import os
import sys
from pathlib import Path

from proactivellm.backbone.bundled import bundled_adapters, bundled_models

CACHE_VARIABLE = "PROACTIVELLM_CACHE"
SOURCE_FILE = "source.json"  # where a model comes from; written last, so that what has it is whole


def cache_folder() -> Path:
    """Where they are kept: $PROACTIVELLM_CACHE, or else the place of the platform."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser().absolute()
    if sys.platform == "win32":
        parent = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        parent = Path.home() / "Library" / "Caches"
    else:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return parent / "proactivellm"


def pulled_models() -> dict[str, Path]:
    """Folders of the models that were pulled, by name."""
    found = sorted((cache_folder() / "models").glob(f"*/{SOURCE_FILE}"))
    return {path.parent.name: path.parent for path in found}


def named_models() -> dict[str, Path]:
    """Folders of models and adapters that are here under a name: bundled ones, and pulled ones."""
    return {**pulled_models(), **bundled_adapters(), **bundled_models()}
