"""The models that are here, and those that can be had: licence, size, languages of each."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import constants, metadata_load, scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from proactivellm.backbone.bundled import bundled_adapters, bundled_models
from proactivellm.backbone.cache import pulled_models
from proactivellm.backbone.known import KNOWN

_MODEL_FILES = ("config.json", "adapter_config.json")


class Entry(NamedTuple):
    """A line of the catalogue; "?" stands for what nothing here tells."""

    name: str
    where: str  # bundled, pulled, hub cache; of what is not here: from where it can be pulled
    size: str
    languages: str
    licence: str
    base: str = ""  # of an adapter: the model that it is used with


def catalogue() -> list[Entry]:
    """What is bundled, pulled or in the cache of the hub, and known models that are not here."""
    bundled = {**bundled_models(), **bundled_adapters()}
    here = [_of_folder(name, folder, "bundled") for name, folder in bundled.items()]
    here += [_of_known(name, "pulled", folder) for name, folder in pulled_models().items()]
    cached = list(_cached())
    here += cached
    repos = {entry.name for entry in cached}
    absent = [
        _of_known(name, "packages" if known.packed else "hub")
        for name, known in KNOWN.items()
        if name not in pulled_models() and (known.packed or known.source not in repos)
    ]
    return here + absent


def card_of(folder: Path) -> dict[str, Any]:
    """What the model card in a folder says first; nothing where there is none, or it is broken."""
    try:
        return dict(metadata_load(folder / "README.md") or {})
    except (OSError, ValueError, TypeError):
        return {}
    except Exception as error:  # of the YAML reader, which is not one of our dependencies
        if type(error).__module__.startswith("yaml"):
            return {}
        raise


def licence_of(card: dict[str, Any]) -> str:
    """How a model card names the licence; "?" if it does not."""
    licence = card.get("license_name") if card.get("license") == "other" else card.get("license")
    return str(licence or "?")


def _cached() -> list[Entry]:
    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    found = []
    for repo in sorted(repos, key=lambda each: each.repo_id):
        newest = max(repo.revisions, key=lambda each: each.last_modified, default=None)
        if repo.repo_type == "model" and newest is not None:
            folder = Path(newest.snapshot_path)
            if any((folder / name).exists() for name in _MODEL_FILES):
                found.append(_of_folder(repo.repo_id, folder, "hub cache"))
    return found


def _of_folder(name: str, folder: Path, where: str) -> Entry:
    card = card_of(folder)
    languages = card.get("language") or "?"
    languages = languages if isinstance(languages, str) else ", ".join(map(str, languages))
    return Entry(name, where, _size(folder), languages, licence_of(card), _base(folder))


def _base(folder: Path) -> str:
    try:
        adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return str(adapter.get("base_model_name_or_path") or "?")
    except FileNotFoundError:
        return ""  # a whole model
    except (OSError, ValueError, AttributeError):
        return "?"


def _of_known(name: str, where: str, folder: Path | None = None) -> Entry:
    known = KNOWN.get(name)
    if known is None:  # pulled by another release
        return Entry(name, where, _size(folder) if folder else "?", "?", "?")
    size = f"{known.parameters} weights" if folder is None else _size(folder)
    if folder is None and known.packed:
        size = f"{known.packed.megabytes} MB"
    return Entry(name, where, size, known.languages, known.licence.name)


def _size(folder: Path) -> str:
    total = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{max(round(total / 1e6), 1)} MB"
