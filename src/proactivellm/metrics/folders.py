"""Evaluation folders side by side: which policies of two belong together."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proactivellm.files.replace import write_json
from proactivellm.output.log import LOG_FILE

SCORES_FILE = "scores.json"
Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The logs of an evaluation folder, or a single log."""

    path: Path
    # By request, the policy as it was asked for; by folder name where `scores.json` does not tell.
    logs: Mapping[str, Path]
    is_log: bool = False  # whether a single log was given, or the folder of one


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Pairs of requests to compare, and the requests that only one folder has."""

    pairs: Sequence[Pair]
    only_first: Sequence[str] = field(default_factory=list)
    only_second: Sequence[str] = field(default_factory=list)


def find_logs(path: str | Path) -> Folder:
    """The logs in a folder that `evaluate` wrote, or the one log given.

    Raises a ValueError if there is no such file, or there are no logs in the folder.
    """
    path = Path(path)
    log = path / LOG_FILE if path.is_dir() else path
    if log.is_file():
        # Resolved, because "." has no name.
        return Folder(path=path, logs={log.resolve().parent.name: log}, is_log=True)
    if not path.is_dir():
        raise ValueError(f"{path}: no such file or folder")
    files = sorted(path.glob(f"*/{LOG_FILE}"))
    if not files:
        raise ValueError(
            f"{path}: no logs in it (*/{LOG_FILE}); give a folder that `evaluate` wrote, or a log"
        )
    requests = requests_of(path)
    return Folder(path=path, logs={requests.get(f.parent.name, f.parent.name): f for f in files})


def match(first: Folder, second: Folder, wanted: Sequence[str] = ()) -> Matches:
    """Which logs are compared, and what has no partner.

    Policies whose folders have the same name are pairs, and two single logs are, whatever their
    names; `wanted` names others, `A_POLICY=B_POLICY`. Raises a ValueError if a wanted pair is not
    there, or nothing is in both.
    """
    if wanted:
        return Matches(pairs=[_parse_pair(text, first, second) for text in wanted])
    if first.is_log and second.is_log:
        return Matches(pairs=list(zip(first.logs, second.logs, strict=True)))
    names = [{log.parent.name: name for name, log in each.logs.items()} for each in (first, second)]
    common = [name for name in names[0] if name in names[1]]
    if not common:
        raise ValueError(
            f"no policy is in both: {_list(first)}; {_list(second)}; "
            "name two that are to be compared with --pair A_POLICY=B_POLICY"
        )
    return Matches(
        pairs=[(names[0][name], names[1][name]) for name in common],
        only_first=[request for name, request in names[0].items() if name not in common],
        only_second=[request for name, request in names[1].items() if name not in common],
    )


def _parse_pair(text: str, first: Folder, second: Folder) -> Pair:
    """Splits at the '=' that leaves a policy of each folder: specs hold that sign, too."""
    ends = [place for place, character in enumerate(text) if character == "="]
    found = [
        (a, b)
        for place in ends
        if (a := _find(text[:place], first)) and (b := _find(text[place + 1 :], second))
    ]
    if not found:
        raise ValueError(
            f"--pair {text!r}: give A_POLICY=B_POLICY, a policy of each; {_list(first)}; "
            f"{_list(second)}"
        )
    return found[0]


def _find(name: str, folder: Folder) -> str | None:
    """The request that a text names, be it as asked for or as its folder is called."""
    names = {name: name for name in folder.logs}
    names |= {log.parent.name: request for request, log in folder.logs.items()}
    return names.get(name.strip())


def requests_of(path: Path) -> dict[str, str]:
    """Folder name -> request, as scores.json has them, in its order; empty where there is none.

    Raises a ValueError if scores.json is no list of scores.
    """
    file = path / SCORES_FILE
    try:
        rows = list(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else []
        return {folder_name(row["request"]): row["request"] for row in rows}
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{file}: not a list of scores; delete it, the logs hold all") from None


def write_scores(path: Path, scores: Sequence[Mapping[str, Any]]) -> None:
    """Writes scores.json, a list of objects, one per policy, into an evaluation folder."""
    write_json(path / SCORES_FILE, [dict(row) for row in scores])


def folder_name(request: str) -> str:
    """The name of a policy's folder: its request, without what a file name may not hold."""
    name = re.sub(r"[^A-Za-z0-9.=,-]+", "_", request)
    return name if name.strip(".") else f"_{name}"  # not the folder itself, nor the one above


def _list(folder: Folder) -> str:
    return f"{folder.path} has {', '.join(folder.logs)}"
