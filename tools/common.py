"""What the checks of this folder share: files in, offences out, exit status 1 if there are any."""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Offence(NamedTuple):
    """One line of a check's report."""

    path: Path
    line: int
    message: str


def parsed_files(roots: Iterable[Path]) -> Iterator[tuple[Path, ast.Module]]:
    """Parses every Python file under the given folders; yields path and tree, in order of the path.

    A folder without a Python file ends the program: a check of nothing cannot fail.
    """
    for root in roots:
        paths = sorted(root.rglob("*.py"))
        if not paths:
            raise SystemExit(f"{root}: no Python file to check")
        for path in paths:
            yield path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def report(offences: Iterable[Offence]) -> int:
    """Prints offences as `path:line message`; returns the exit status, 1 if there were any."""
    here, count = Path.cwd(), 0  # paths relative to the current folder can be clicked on
    for path, line, message in offences:
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        print(f"{shown}:{line} {message}")
        count += 1
    print(f"{Path(sys.argv[0]).stem}: {count} offence(s)", file=sys.stderr)
    return int(count > 0)
