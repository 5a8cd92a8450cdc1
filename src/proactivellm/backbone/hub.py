"""Finds the folder of a model, with all beside its weights: by name, local, or from the hub."""

import re
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from proactivellm.backbone.cache import named_models
from proactivellm.backbone.known import KNOWN

_PARTS = r"(-\d+-of-\d+)?"
_WEIGHTS = re.compile(rf"(adapter_)?model{_PARTS}\.safetensors")
_OLDER_WEIGHTS = re.compile(rf"(pytorch_model{_PARTS}|adapter_model)\.bin")
# Settings, tokenizer, tables, the head of the policy `learned`, and what tells the licence.
_SMALL = re.compile(
    r".*\.(json|txt|model|tiktoken|jinja)|learned\.safetensors|README\.md|(LICEN[CS]E|NOTICE).*"
)
_IN_CACHE = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[^/]+)")


def find_folder(name: str | Path, trust_remote_code: bool = False) -> Path:
    """The folder of a model; what is missing of one of the hub is fetched into its cache.

    `name` is that of a bundled, pulled or known model, a folder, a GGUF file, or a hub id
    (`owner/name`, `owner/name@revision`). ValueError if there is no such model, or it is not in the
    cache and the hub gives no answer.

    Args:
        trust_remote_code: fetch the code that a model of the hub brings, too.
    """
    folder = named_models().get(str(name), Path(name))
    if folder.is_dir():
        return folder
    if folder.suffix == ".gguf" and folder.is_file():
        from proactivellm.backbone.gguf import unpacked

        return unpacked(folder)
    known = KNOWN.get(str(name))
    if known and known.packed:
        raise ValueError(f"the model {name!r} is not here yet: proactivellm pull {name}")
    wanted = known.source if known else name
    repo, _, revision = str(wanted).partition("@")
    if not is_hub_id(wanted):
        raise ValueError(
            f"no model {str(name)!r}: not a folder here, not a hub id (owner/name), and not "
            f"one that `proactivellm models` lists ({', '.join({**named_models(), **KNOWN})})"
        )
    return _fetched(repo, revision or None, trust_remote_code)


def is_hub_id(name: str | Path) -> bool:
    """Whether it may name a model of the hub: not a path, and exactly one slash."""
    return isinstance(name, str) and name.count("/") == 1 and not name.startswith((".", "/", "~"))


def name_of(folder: Path) -> str:
    """What a model folder is called: its own name, its hub id with the commit, its path."""
    names = {place: name for name, place in named_models().items()}
    return names.get(folder) or hub_id(folder) or str(folder.resolve())


def hub_id(folder: Path) -> str | None:
    """`owner/name@commit` of a folder inside the cache of the hub; None of any other."""
    found = _IN_CACHE.fullmatch("/".join(folder.absolute().parts[-3:]))
    return None if found is None else "{owner}/{name}@{commit}".format(**found.groupdict())


def needed(names: Iterable[str], trust_remote_code: bool = False) -> list[str]:
    """Which files of a repository make a model; the same weights often lie there several times."""
    names = list(names)
    weights = [name for name in names if _WEIGHTS.fullmatch(name)]
    weights = weights or [name for name in names if _OLDER_WEIGHTS.fullmatch(name)]
    # A front end lies in a folder of its kind: speech/ is one by speech/speech.json.
    beside = {name.split("/")[0] for name in names if re.fullmatch(r"(\w+)/\1\.json", name)}
    return [
        name
        for name in names
        if name in weights
        or ("/" not in name and _SMALL.fullmatch(name))
        or name.split("/")[0] in beside
        or (trust_remote_code and name.endswith(".py"))
    ]


def _fetched(repo: str, revision: str | None, trust_remote_code: bool) -> Path:
    wanted = f"{repo}@{revision}" if revision else repo
    patterns = None
    try:
        if not constants.is_offline_mode():
            listed = HfApi().model_info(repo, revision=revision).siblings or []
            patterns = needed((file.rfilename for file in listed), trust_remote_code)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ValueError(f"no model {wanted!r} on the hub: {_first_line(error)}") from error
    except Exception:  # no answer, for which every transport has exceptions of its own
        patterns = None
    try:
        place = snapshot_download(
            repo, revision=revision, allow_patterns=patterns, local_files_only=patterns is None
        )
    except LocalEntryNotFoundError as error:
        asked = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the hub gave no answer"
        raise ValueError(
            f"no model {wanted!r}: it is not in the cache of the hub ({constants.HF_HUB_CACHE}), "
            f"and {asked}; if you meant a folder, there is none of that name here"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot fetch {wanted!r} from the hub: {_first_line(error)}") from error
    return Path(place)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
