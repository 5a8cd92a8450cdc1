"""Docstrings against signatures: what is documented exists, what is public is documented.

Run: python tools/check_docstrings.py [FOLDER ...]. In Google style, names under `Args:` must be
parameters (of a class: its fields or the parameters of __init__), names under `Attributes:` must be
attributes. Modules, public classes, functions and methods need a docstring; a method that overrides
one of a base class does not, as the contract is the base's.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from common import ROOT, FunctionNode, Offence, parsed_files, report

ENTRY = re.compile(r"(\*{0,2}\w+(?:,\s*\*{0,2}\w+)*)\s*(?:\(.*?\))?:(?:\s|$)")
NO_CONTRACT_OF_ITS_OWN = {"overload", "override", "setter", "deleter"}
# Bases that declare no methods of their own to override.
CONTRACTLESS_BASES = ("ABC", "BaseModel", "Enum", "Generic", "NamedTuple", "Protocol", "StrEnum")
PROPERTIES = {"property", "cached_property"}
Classes = dict[str, ast.ClassDef]


def check(roots: list[Path]) -> Iterator[Offence]:
    """Yields missing docstrings and names that do not exist, in the folders `roots`."""
    files = list(parsed_files(roots))
    # By name, to look up bases; a name that several modules use is that of its own module, else the
    # last, which is near enough for bases.
    classes_in = {path: _classes(tree) for path, tree in files}
    classes = {name: node for each in classes_in.values() for name, node in each.items()}
    for path, tree in files:
        if not ast.get_docstring(tree):
            yield Offence(path, 1, "module has no docstring")
        for line, message in _check_body(tree, classes | classes_in[path], public=True):
            yield Offence(path, line, message)


def _classes(tree: ast.AST) -> Classes:
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _check_body(node: ast.AST, classes: Classes, public: bool) -> Iterator[tuple[int, str]]:
    """Checks the definitions in a module, class or function; in a function, none is public."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FunctionNode | ast.ClassDef):
            is_public = public and not child.name.startswith("_")
            docstring = ast.get_docstring(child, clean=False)
            if docstring:
                yield from _check_drift(child, docstring, classes)
            elif is_public and not _inherits_contract(child, node, classes):
                yield child.lineno, f"{child.name} has no docstring"
            inside = is_public and isinstance(child, ast.ClassDef)
            yield from _check_body(child, classes, public=inside)
        else:
            yield from _check_body(child, classes, public)


def _check_drift(
    node: FunctionNode | ast.ClassDef, docstring: str, classes: Classes
) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.ClassDef):
        known = {"Args": _constructor(node, classes), "Attributes": _attributes(node, classes)}
    else:
        known = {"Args": _parameters(node)}
    for section, names in known.items():
        for entry in _entries(docstring, section):
            match = ENTRY.match(entry)
            if not match:
                yield node.lineno, f"{node.name}: cannot read under {section}: {entry!r}"
                continue
            for name in re.split(r",\s*", match[1]):
                if name not in names:
                    where = "an attribute" if section == "Attributes" else "in the signature"
                    yield node.lineno, f"{node.name}: documents '{name}', which is not {where}"


def _entries(docstring: str, section: str) -> Iterator[str]:
    """The first line of each entry of a section, `name: text`, without its indentation."""
    lines = inspect.cleandoc(docstring).splitlines()
    titles = ("Args:", "Arguments:", "Parameters:") if section == "Args" else (f"{section}:",)
    inside, indent = False, 0
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.strip() and not depth:
            inside, indent = line.strip() in titles, 0
        elif inside and line.strip():
            indent = indent or depth
            if depth <= indent:
                yield line.strip()


def _parameters(node: FunctionNode) -> set[str]:
    arguments = node.args
    plain = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    names = {argument.arg for argument in plain} - {"self", "cls"}
    # The asterisks may be left out in the docstring.
    for stars, argument in (("*", arguments.vararg), ("**", arguments.kwarg)):
        names |= {argument.arg, stars + argument.arg} if argument else set()
    return names


def _bases(node: ast.ClassDef, classes: Classes) -> Iterator[ast.ClassDef]:
    """A class and all its bases as far as they are in the checked folders, nearest first."""
    yield node
    for base in node.bases:
        found = classes.get(_last_name(base))
        if found is not None and found is not node:
            yield from _bases(found, classes)


def _last_name(node: ast.expr) -> str:
    return ast.unparse(node).split("[")[0].split(".")[-1]


def _constructor(node: ast.ClassDef, classes: Classes) -> set[str]:
    names = set()
    for klass in _bases(node, classes):
        for child in klass.body:
            if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
                names.add(child.target.id)
            elif isinstance(child, FunctionNode) and child.name in ("__init__", "__new__"):
                names |= _parameters(child)
    return names


def _attributes(node: ast.ClassDef, classes: Classes) -> set[str]:
    names = _constructor(node, classes)
    for klass in _bases(node, classes):
        for child in ast.walk(klass):
            if isinstance(child, ast.Attribute | ast.Name) and isinstance(child.ctx, ast.Store):
                names.add(child.attr if isinstance(child, ast.Attribute) else child.id)
            elif isinstance(child, FunctionNode) and _decorators(child) & PROPERTIES:
                names.add(child.name)
    return names


def _decorators(node: FunctionNode) -> set[str]:
    return {_last_name(decorator) for decorator in node.decorator_list}


def _inherits_contract(child: ast.AST, parent: ast.AST, classes: Classes) -> bool:
    if not isinstance(child, FunctionNode):
        return False
    if _decorators(child) & NO_CONTRACT_OF_ITS_OWN:
        return True
    if not isinstance(parent, ast.ClassDef):
        return False
    known = {*classes, *CONTRACTLESS_BASES}
    for klass in _bases(parent, classes):
        if any(_last_name(base) not in known for base in klass.bases):
            return True  # a base from elsewhere, such as nn.Module: it may well be its contract
        if klass is not parent and child.name in _documented_methods(klass):
            return True
    return False


def _documented_methods(klass: ast.ClassDef) -> set[str]:
    methods = [member for member in klass.body if isinstance(member, FunctionNode)]
    return {method.name for method in methods if ast.get_docstring(method)}


if __name__ == "__main__":
    sys.exit(report(check([Path(n) for n in sys.argv[1:]] or [ROOT / "src", ROOT / "tools"])))
