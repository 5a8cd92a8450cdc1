"""Finds what is wrong with a model folder, and says it in one line: the cause, and its remedy.

The libraries that read a folder raise whatever its content makes them stumble over, and often name
neither file nor value. Here the files are read once more, to say which one it is.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from proactivellm.backbone.decoder import rope_tables

CONFIG_FILE, ADAPTER_FILE = "config.json", "adapter_config.json"
# Read by transformers, which passes over some of them where they are broken.
_JSON_FILES = (
    *(CONFIG_FILE, ADAPTER_FILE, "generation_config.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "model.safetensors.index.json"),
    *("preprocessor_config.json", "processor_config.json"),
)
_LONGEST = 300  # characters of a reason
_LFS_MARK = b"version https://git-lfs"
# A kernel of the hub that config.json names would be fetched, and run, as the model is made; here
# models get an attention of their own afterwards.
NO_KERNEL = {"attn_implementation": "eager"}
NEEDS_TRUST = (
    "it has code of its own, which runs with all your rights; if you trust it: "
    "--trust-remote-code (in Python trust_remote_code=True)"
)


def check_json_files(folder: Path) -> None:
    """Refuse (ValueError, naming the file) a folder whose small files cannot be read."""
    for name in _JSON_FILES:
        if (folder / name).exists():
            read_object(folder / name)


def read_object(file: Path) -> dict[str, Any]:
    """Reads a JSON object; ValueError, naming the file, if it holds none."""
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8: restore it") from None
    except (json.JSONDecodeError, RecursionError) as error:
        where = "it is empty" if not text.strip() else error
        raise ValueError(f"{file} is not JSON ({where}): restore it") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds no JSON object: restore it")
    return found


@contextmanager
def refusing(what: str, cause: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Whatever a library raises on what a folder holds becomes one line, a ValueError.

    Args:
        what: could not be done; begins the line.
        cause: asked for the reason first; None = that of the exception.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(f"{what}: {_needs_trust(error) or cause() or reason(error)}") from error


def reason(error: Exception) -> str:
    """An exception in one line, with its type where the text alone says little."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, UnpicklingError):  # whose own text says how to run it nevertheless
        return "its weights are a pickle that wants to run code: take them as .safetensors"
    if isinstance(error, StrictDataclassError):  # first the field, then what is wrong with it
        return " ".join(lines)
    if isinstance(error, OSError | ValueError | ImportError | SafetensorError) and lines:
        return lines[0]
    text = f"{type(error).__name__}: {' '.join(lines)}".removesuffix(": ")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def broken_json(file: Path) -> str | None:
    """What is wrong with a JSON file of a folder; None if it can be read, or is not there."""
    try:
        if file.exists():
            read_object(file)
    except ValueError as error:
        return str(error)
    return None


def broken_weights(folder: Path) -> str | None:
    """The file of weights that cannot be read, and what is wrong with it; None if all can be."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with file.open("rb") as content:
                begin = content.read(len(_LFS_MARK))
            if begin == _LFS_MARK:
                return f"{file.name} only points to weights: get them with `git lfs pull`"
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            return f"{file.name} is cut or broken ({reason(error)}): copy it anew"
    return _missing_shard(folder / "model.safetensors.index.json")


def unknown_names(config: PreTrainedConfig | None) -> str | None:
    """What a configuration names and transformers does not have, which it tells as a KeyError."""
    if config is None:
        return None
    text = config.get_text_config()
    for table in rope_tables(text):
        kind = table.get("rope_type", "default")
        if kind != "default" and kind not in ROPE_INIT_FUNCTIONS:
            return (
                f"config.json has the rope type {kind!r}, which transformers does not know: "
                f"it has default, {', '.join(ROPE_INIT_FUNCTIONS)}"
            )
    for key in ("hidden_act", "hidden_activation", "activation_function"):
        name = getattr(text, key, None)
        if isinstance(name, str) and name not in ACT2FN:
            return f"config.json has {key} = {name!r}, which transformers does not know"
    return None


def _missing_shard(index: Path) -> str | None:
    if not index.is_file():
        return None
    shards = read_object(index).get("weight_map", {})
    absent = sorted(name for name in set(shards.values()) if not (index.parent / name).is_file())
    return f"{absent[0]}, named in {index.name}, is not there: copy it anew" if absent else None


def _needs_trust(error: Exception) -> str | None:
    return NEEDS_TRUST if "trust_remote_code" in str(error) else None
