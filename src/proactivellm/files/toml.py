"""Strict recipes: a TOML file in, a validated and frozen model out.

The models themselves belong to the rooms that use them. A mistake is a ValueError with one line for
each: the file, the dotted key, what is wrong, the remedy.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

ModelT = TypeVar("ModelT", bound=BaseModel)


class Strict(BaseModel):
    """Base of every recipe and of its tables: frozen; no unknown keys, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def load_toml(path: str | Path, model_class: type[ModelT], above: Sequence[Path] = ()) -> ModelT:
    """Reads a TOML file and validates it without guessing: the string "3" is not the number 3.

    Args:
        model_class: usually a `Strict`; its nested models are the file's tables.
        above: files that are laid over it in this order, key by key.

    Raises:
        ValueError: the file cannot be read, is not TOML, or does not fit; one line per mistake.
    """
    data = read_toml(path)
    for other in above:
        data = overlaid(data, read_toml(other))
    return validated(data, model_class, " + ".join(map(str, (path, *above))))


def overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """A new table: one laid over another, tables within them likewise."""
    both = below.keys() & above.keys()
    merged = {
        key: overlaid(below[key], above[key])
        for key in both
        if isinstance(below[key], dict) and isinstance(above[key], dict)
    }
    return {**below, **above, **merged}


def validated(data: dict[str, Any], model_class: type[ModelT], where: str) -> ModelT:
    """Validates what a TOML file held.

    Raises:
        ValueError: it does not fit; one line per mistake, which begins with `where`.
    """
    if key := _key_beyond_64_bits(data):
        raise ValueError(f"{where}: {key}: a whole number of more than 64 bits")
    try:
        # By way of JSON, where strict means: no "3" for 3, no 1 for true; yet an array may become a
        # tuple, and a string a path, a date or an enumeration, as none of these can be spelt there.
        return model_class.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        lines = [f"{where}: {_explain(detail, model_class)}" for detail in error.errors()]
        raise ValueError("\n".join(lines)) from None


def read_toml(path: str | Path) -> dict[str, Any]:
    """The content of one TOML file.

    Raises:
        ValueError: the file cannot be read or is not TOML.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line}: not valid UTF-8; save the file as UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", str(error), re.DOTALL)
        what = found[1] if found else str(error).removesuffix(" (at end of document)")
        line = int(found[2]) if found else len(text.splitlines())
        raise ValueError(f"{path}: line {line}: not valid TOML: {what}") from None
    except RecursionError:
        raise ValueError(f"{path}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{path}: not valid TOML: {error}") from None


def _key_beyond_64_bits(value: Any, location: tuple[int | str, ...] = ()) -> str | None:
    """The dotted key of a whole number that TOML does not have, though its reader takes it."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return _dotted(location)
    inside: Iterable[tuple[int | str, Any]] = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    found = (_key_beyond_64_bits(each, (*location, key)) for key, each in inside)
    return next((key for key in found if key), None)


def _explain(detail: ErrorDetails, model_class: type[BaseModel]) -> str:
    """One validation error as `dotted.key: what is wrong`, on one line."""
    location = detail["loc"]
    if detail["type"] == "extra_forbidden":
        *table, key = location
        where = f"[{_dotted(tuple(table))}]" if table else "the top level"
        hint = _nearest(str(key), _keys_at(model_class, tuple(table)))
        return f"unknown key '{key}' in {where}; {hint}"
    if detail["type"] == "missing":
        return f"{_dotted(location)}: required key is missing"
    what = " ".join(detail["msg"].removeprefix("Value error, ").split())
    if not location:  # said by a validator of the whole recipe
        return what
    if detail["type"] == "model_type":  # JSON's word for it is "object"
        what = "Input should be a table"
    return f"{_dotted(location)}: {what}, not {detail['input']!r}"


def _dotted(location: tuple[int | str, ...]) -> str:
    """A location as dotted keys, without the members of unions, which pydantic names as well."""
    return ".".join(str(part) for part in location if not re.search(r"[\[(]", str(part)))


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A question about a mistyped name; empty where no valid one is near."""
    near = difflib.get_close_matches(name, list(valid), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _nearest(key: str, valid: list[str]) -> str:
    return did_you_mean(key, valid) or f"valid keys: {', '.join(sorted(valid))}"


def _keys_at(model_class: type[BaseModel], table: tuple[int | str, ...]) -> list[str]:
    """The valid keys of a table; of all its variants where it may be one of several models."""
    models = [model_class]
    for part in table:
        annotations = [f.annotation for model in models for k, f in _fields(model) if k == part]
        if annotations:  # otherwise an index into an array or the tag of a variant: stay
            models = [inner for annotation in annotations for inner in _models_in(annotation)]
    return [key for model in models for key, _ in _fields(model)]


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        yield field.alias or name, field


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that occur in an annotation, such as A and B in `list[A | B] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
