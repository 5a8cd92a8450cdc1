"""Models and adapters that come with the package.

Nothing heavy is imported: a shell completes by it.
"""

from importlib.resources import files
from pathlib import Path

DEFAULT_MODEL = "tatoeba-de-en"
_ASSETS = Path(str(files("proactivellm"))) / "assets"


def bundled_models() -> dict[str, Path]:
    """Folders of the bundled models, by name."""
    return {path.parent.name: path.parent for path in sorted(_ASSETS.glob("*/config.json"))}


def bundled_adapters() -> dict[str, Path]:
    """Folders of the bundled adapters, by name; each names the model that it is used with."""
    return {path.parent.name: path.parent for path in sorted(_ASSETS.glob("*/adapter_config.json"))}
