"""The size budget: modules of at most 300 lines, functions of at most 50, at most 7 parameters.

Run: python tools/check_size.py [FOLDER ...]. Every kind of parameter counts, keyword-only ones too,
except self and cls. A command of the command line (`@app.command()`) may have more parameters, as
they are its flags, each with its help, and its length is counted from its docstring on.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from common import ROOT, FunctionNode, Offence, parsed_files, report

MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 50
MAX_PARAMETERS = 7


def check(roots: list[Path]) -> Iterator[Offence]:
    """Yields what is over the budget in the folders `roots`."""
    for path, tree in parsed_files(roots):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_MODULE_LINES:
            yield Offence(path, 1, f"module has {lines} lines, at most {MAX_MODULE_LINES}")
        for node in ast.walk(tree):
            if isinstance(node, FunctionNode):
                yield from _check_function(path, node)


def _check_function(path: Path, node: FunctionNode) -> Iterator[Offence]:
    first = node.body[0].lineno if _is_command(node) else node.lineno
    lines = (node.end_lineno or node.lineno) - first + 1
    if lines > MAX_FUNCTION_LINES:
        what = f"{node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}"
        yield Offence(path, node.lineno, what)
    parameters = _count_parameters(node.args)
    if parameters > MAX_PARAMETERS and not _is_command(node):
        what = f"{node.name} has {parameters} parameters, at most {MAX_PARAMETERS}"
        yield Offence(path, node.lineno, what)


def _count_parameters(arguments: ast.arguments) -> int:
    positional = [*arguments.posonlyargs, *arguments.args]
    if positional and positional[0].arg in ("self", "cls"):
        positional = positional[1:]
    starred = [star for star in (arguments.vararg, arguments.kwarg) if star]
    return len(positional) + len(arguments.kwonlyargs) + len(starred)


def _is_command(node: FunctionNode) -> bool:
    calls = [decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call)]
    return any(
        isinstance(call.func, ast.Attribute) and call.func.attr == "command" for call in calls
    )


def _default_roots() -> list[Path]:
    optional = [ROOT / name for name in ("benchmarks", "examples") if (ROOT / name).is_dir()]
    return [ROOT / "src", ROOT / "tools", *optional]


if __name__ == "__main__":
    sys.exit(report(check([Path(name) for name in sys.argv[1:]] or _default_roots())))
