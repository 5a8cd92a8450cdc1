"""The instance log: JSON lines, one per source, the only thing between running and scoring.

The names of SimulEval's `instances.log` are kept, so its `--score-only` and `omnisteval shortform`
read the file as it is and ignore what is added. (Where times are of characters, both have to be
told: `--eval-latency-unit char`, `--char_level`.) Its logs and simulstream's are read here too.
"""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import MISSING, asdict, fields
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from pydantic import TypeAdapter, ValidationError

from proactivellm.files.replace import naming
from proactivellm.output.foreign import from_simuleval, from_simulstream, tool_of
from proactivellm.output.instance import TEXT as TEXT
from proactivellm.output.instance import Instance as Instance
from proactivellm.output.instance import LatencyUnit as LatencyUnit
from proactivellm.output.instance import LoggedThought as LoggedThought
from proactivellm.output.instance import Task as Task
from proactivellm.output.instance import check_times
from proactivellm.output.scripts import characters

LOG_FILE = "instances.log"  # the name SimulEval looks for

_INSTANCE = TypeAdapter(Instance)
_LEFT_OUT = {
    field.name: field.default
    for field in fields(Instance)
    if field.name not in ("version", "reference") and field.default is not MISSING
}


def write_instance(file: TextIO, instance: Instance) -> None:
    """Appends one instance as one line and flushes it, so that an interruption loses at most it.

    `file` is open for writing in UTF-8. Raises a ValueError if a number is not finite, an OSError
    that names the file if, for example, the disk is full.
    """
    record = asdict(instance)
    # Not the reference: SimulEval takes an absent one for a reference of one word.
    for key, default in _LEFT_OUT.items():
        if record[key] == default:
            del record[key]
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    with naming(getattr(file, "name", "log")):
        file.write(line)
        file.flush()


def read_log(path: str | Path) -> list[Instance]:
    """Reads an instance log, or one of SimulEval or simulstream, in the order of the file.

    What is taken from the logs of others, see `from_simuleval` and `from_simulstream`.

    Raises:
        ValueError: no such file, or a line is of no known log, malformed, lacks a key, has another
            version, holds an impossible value, or repeats an index; names the file, the line, the
            value and the remedy.
    """
    return _parse_lines(Path(path), _read_bytes(Path(path)))


def recover_log(path: str | Path) -> list[Instance]:
    """Makes the log of an interrupted run fit to be appended to, and returns its instances.

    A last line that was cut off is removed from the file; a missing final newline is added. A file
    that does not exist has no instances.

    Raises:
        ValueError: as `read_log`, for whatever an interruption does not explain.
    """
    file = Path(path)
    if not file.exists():
        return []
    content = _read_bytes(file)
    kept, newline, tail = content.rpartition(b"\n")
    # Only the beginning of a record is removed: any other text is not ours to delete.
    cut_off = tail.startswith(b"{") and not _is_json(tail)
    instances = _parse_lines(file, kept if cut_off else content)
    if cut_off:
        os.truncate(file, len(kept) + len(newline))
    elif tail:
        with file.open("ab") as stream:
            stream.write(b"\n")
    return instances


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parse_lines(path: Path, content: bytes) -> list[Instance]:
    lines = (
        (f"{path}: line {number}", line)
        for number, line in enumerate(content.split(b"\n"), start=1)
        if line.strip()
    )
    instances = []
    place_of_index: dict[int, str] = {}
    for where, record in _records((where, _parse(line, where)) for where, line in lines):
        try:
            instance = _INSTANCE.validate_python(record)
            check_times(instance, runs_on="version" in record)
            _check_reference(instance, record)
        except ValidationError as error:
            raise ValueError(f"{where}: {_explain(error)}") from None
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        first = place_of_index.setdefault(instance.index, where)
        if first != where:
            raise ValueError(
                f"{where}: index {instance.index} is already that of "
                f"{first.removeprefix(f'{path}: ')}; delete one of the two lines"
            )
        instances.append(instance)
    return instances


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{where}: not JSON ({error}); if the run was interrupted here, "
            "resume it or delete the line"
        ) from None
    if not isinstance(record, dict):
        raise ValueError(f"{where}: an instance is a JSON object, found {str(record)[:40]!r}")
    return record


def _check_reference(instance: Instance, record: dict[str, Any]) -> None:
    """Refuses a reference that has another length than the log tells, however it was counted."""
    told = record.get("reference_length")
    if told is None or instance.reference is None or instance.latency_unit == "spm":
        return
    text = instance.reference
    if instance.latency_unit == "word":
        lengths = [len(text.split()), len(text.split(" "))]
    else:
        lengths = [len(characters(text)), len(text.strip())]
    if told not in lengths:
        raise ValueError(
            f"reference_length = {told!r}, but the reference has {lengths[0]} "
            f"{instance.latency_unit}s: the line holds the reference of another source"
        )


def _records(
    lines: Iterable[tuple[str, dict[str, Any]]],
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Our records, by the tool that wrote the first line."""
    lines = iter(lines)
    for where, first in lines:
        tool = tool_of(first)
        if tool is None:
            raise ValueError(
                f"{where}: neither an instance log (JSON lines with version, prediction, delays, "
                "...), nor SimulEval's instances.log (prediction, delays, elapsed, ...), nor a "
                f"metric log of simulstream (metadata, generated_tokens, ...): found {_keys(first)}"
            )
        lines = chain([(where, first)], lines)
        if tool == "simulstream":
            return from_simulstream(lines)
        return (
            (where, record if "version" in record else from_simuleval(record, where))
            for where, record in lines
        )
    return ()


def _keys(record: dict[str, Any]) -> str:
    return ", ".join(record)[:80] or "no keys"


def _explain(error: ValidationError) -> str:
    """The first thing that is wrong, with its remedy."""
    details = error.errors(include_url=False)
    missing = [str(detail["loc"][0]) for detail in details if detail["type"] == "missing"]
    if missing:
        return (
            f"missing {', '.join(missing)}; an instance log holds these in every line "
            "(it is what `evaluate` and SimulEval write)"
        )
    detail = details[0]
    message = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    key, *places = (part for part in detail["loc"] if part not in ("int", "float"))
    name = str(key) + "".join(f"[{place}]" for place in places)
    value = detail["input"]
    if isinstance(value, float) and not math.isfinite(value):
        message = "a number has to be finite"
    elif len(details) > 1 and detail["type"] == "int_type":  # nor is it a fraction
        message = "input should be a number"
    return f"{name} = {repr(value)[:40]}: {message[0].lower()}{message[1:]}"
