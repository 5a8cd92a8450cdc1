"""What a shell completes after a flag; nothing heavy is loaded for it."""

from pathlib import Path

from proactivellm.backbone.cache import named_models
from proactivellm.cli.policies import TABLE


def complete_model(incomplete: str) -> list[str]:
    """Names of models, folders and GGUF files that begin as typed."""
    typed = Path(incomplete)
    parent = typed if incomplete.endswith("/") else typed.parent
    try:
        folders = sorted(
            str(path) for path in parent.iterdir() if path.is_dir() or path.suffix == ".gguf"
        )
    except OSError:
        folders = []
    return [name for name in (*named_models(), *folders) if name.startswith(incomplete)]


def complete_policy(incomplete: str) -> list[str]:
    """Names of policies that begin as typed."""
    return [name for name in TABLE if name.startswith(incomplete)]
