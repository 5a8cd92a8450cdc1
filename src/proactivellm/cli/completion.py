"""What a shell completes after a flag; nothing heavy is loaded for it."""

from importlib.resources import files
from pathlib import Path

# As in `policy.spec.POLICIES`, which would load torch.
POLICY_NAMES = (
    *("wait-k", "sentence-wait-k", "offline", "fixed", "entropy", "confidence"),
    *("attention", "alignatt", "concentration", "combined", "local-agreement", "hold-n", "oracle"),
)


def complete_model(incomplete: str) -> list[str]:
    """Names of bundled models, and folders.

    Args:
        incomplete: what was typed.

    Returns:
        What it may become.
    """
    bundled = Path(str(files("proactivellm"))) / "assets"
    names = sorted(path.parent.name for path in bundled.glob("*/config.json"))
    typed = Path(incomplete)
    parent = typed if incomplete.endswith("/") else typed.parent
    try:
        folders = sorted(str(path) for path in parent.iterdir() if path.is_dir())
    except OSError:
        folders = []
    return [name for name in (*names, *folders) if name.startswith(incomplete)]


def complete_policy(incomplete: str) -> list[str]:
    """Names of policies.

    Args:
        incomplete: what was typed.

    Returns:
        What it may become.
    """
    return [name for name in POLICY_NAMES if name.startswith(incomplete)]
