"""The models that come with the package. Nothing heavy is imported: a shell completes by it."""

from importlib.resources import files
from pathlib import Path

DEFAULT_MODEL = "tatoeba-de-en"


def bundled_models() -> dict[str, Path]:
    """Folders of the bundled models, by name."""
    root = Path(str(files("proactivellm"))) / "assets"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}
