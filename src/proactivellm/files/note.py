"""A note beside a result, which lists its inputs, so that it is not continued with any others.

Inputs are told apart by content (`files.digest`), not by the name of a file or its time.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proactivellm.files.replace import write_text

_MAX_SHOWN = 80  # characters of a value in a message
ANOTHER = "choose another --out or delete that folder"


def check_note(file: Path, inputs: Mapping[str, Any], continues: bool) -> None:
    """Notes the inputs of a result, or compares them with those noted when it was begun.

    Args:
        file: the note, JSON.
        inputs: by name; nested objects are compared key by key.
        continues: whether there is a result already.

    Raises:
        ValueError: the result has other inputs, or nobody knows which; names the folder, what
            differs and the remedy.
    """
    wanted = json.loads(json.dumps(inputs))  # as it will be read again: tuples are lists
    if continues:
        differs = differences(read_note(file), wanted)
        if differs:
            raise ValueError(f"{file.parent} holds another run ({'; '.join(differs)}); {ANOTHER}")
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(wanted, indent=2, ensure_ascii=False) + "\n")


def read_note(file: Path) -> dict[str, Any]:
    """The inputs that were noted, by name.

    Raises:
        ValueError: there is no note, or it is broken; names the remedy.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{file.parent} holds a run without {file.name}, so that nobody can tell what it was "
            f"made of; {ANOTHER}"
        ) from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{file} is broken; {ANOTHER}")
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> list[str]:
    """What differs, in words: a phrase for each value, at most three.

    What only `before` has does not count. `within` is the name of what both are part of.
    """
    found: list[str] = []
    for key, value in now.items():
        name = f"{within}{key}"
        if key not in before:
            found.append(f"{name} was not noted by the release that began it")
        elif isinstance(value, dict) and isinstance(before[key], dict):
            found += differences(before[key], value, f"{name}.")
        elif before[key] != value:
            found.append(f"{name} was {_shown(before[key])}, and is {_shown(value)} now")
    return found[:3]


def merge_note(file: Path, inputs: Mapping[str, Any]) -> None:
    """Adds to a note, for a result that grows; objects are joined with those noted."""
    noted = read_note(file)
    joined = {
        key: {**noted.get(key, {}), **value} if isinstance(value, dict) else value
        for key, value in inputs.items()
    }
    if {**noted, **joined} != noted:
        write_text(file, json.dumps({**noted, **joined}, indent=2, ensure_ascii=False) + "\n")


def _shown(value: Any) -> str:
    text = str(value)
    if isinstance(value, str) and len(text) == 64 and not set(text) - set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"
