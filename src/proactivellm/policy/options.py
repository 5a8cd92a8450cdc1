"""One key of a policy spec: its text form, its JSON scalar, and the checks of its value."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

Scalar = int | float | str | None


_LARGEST = 1_000_000_000  # of whole numbers: sums and products of them fit into 64 bits
_WHOLE = re.compile(
    r"[+-]?[0-9]{1,30}"
)  # what `int` takes besides (1_000, other digits) is refused
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf|nan", re.IGNORECASE)
_SHOWN = 40  # characters of a value in a message


def parse_int(text: str) -> int:
    """Read a whole number; raises ValueError when `text` is something else."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"must be a whole number, got {shown(text)}")
    return int(text)


def parse_optional_int(text: str) -> int | None:
    """Read a whole number, or ``none``; raises ValueError when `text` is neither."""
    return None if text == "none" else parse_int(text)


def parse_float(text: str) -> float:
    """Read a number; raises ValueError when `text` is something else."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"must be a number, got {shown(text)}")
    return float(text)


def shown(value: object) -> str:
    """A value for a message: what `repr` says, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def format_scalar(value: object) -> str:
    """Write a number or None so that reading it gives the same value: 1.2, 3, none."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return "none" if value is None else str(value)


def option(
    *,
    default: Any = dataclasses.MISSING,
    parse: Callable[[str], Any] = parse_int,
    write: Callable[[Any], str] = format_scalar,
) -> Any:
    """Declare one key of a policy spec: a dataclass field with its text form.

    Args:
        default: Without one the key is required.
        parse: Text to value; raises ValueError that begins with "must".
        write: Value to text, the inverse of `parse`.
    """
    return dataclasses.field(default=default, metadata={"parse": parse, "write": write})


def check_int(key: str, value: object, minimum: int | None = None) -> None:
    """Raise ValueError unless `value` is an int of at least `minimum`, and none that is huge."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key} must be a whole number, got {shown(value)}")
    if minimum is not None and value < minimum:
        raise ValueError(f"{key} must be at least {minimum}, got {value}")
    if abs(value) > _LARGEST:
        raise ValueError(f"{key} must be at most {_LARGEST} in size, got {value}")


def check_number(key: str, value: object) -> None:
    """Raise ValueError unless `value` of option `key` is a finite number."""
    number = not isinstance(value, bool) and isinstance(value, int | float)
    # (An int may be too large for a float, and is compared exactly.)
    if not number or value != value or abs(value) > sys.float_info.max:  # type: ignore[arg-type]
        raise ValueError(f"{key} must be a finite number, got {shown(value)}")


def check_choice(key: str, value: object, words: Sequence[str]) -> None:
    """Raise ValueError unless `value` of option `key` is one of some words."""
    if value not in words:
        raise ValueError(f"{key} must be {' or '.join(words)}, got {shown(value)}")


def check_stride(value: object) -> None:
    """Raise ValueError unless `value` is a number of source units for each target word."""
    check_number("stride", value)
    if not 0.001 <= value <= 1000:  # type: ignore[operator]
        raise ValueError(f"stride must be 0.001 to 1000 units for each word, got {value}")


def to_scalar(field: dataclasses.Field[Any], value: Any) -> Scalar:
    """Return the JSON form of the value of an option: itself, or the text of a tuple."""
    return field.metadata["write"](value) if isinstance(value, tuple) else value


def from_scalar(field: dataclasses.Field[Any], scalar: Scalar) -> Any:
    """Return the value of an option from its JSON form, the inverse of `to_scalar`."""
    return field.metadata["parse"](scalar) if isinstance(scalar, str) else scalar
