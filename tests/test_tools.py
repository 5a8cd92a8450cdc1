"""The checks in tools/ can fail: an offence planted alone in a clean tree is found and named."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"

CLEAN_PACKAGE = {
    "__init__.py": '__all__ = ["core"]\n',
    "core/schedule.py": "import torch\n",
    "modality/text.py": "from demo.core.schedule import torch\n",
    "policy/base.py": "from ..modality import text\nfrom ..modality.text import torch\n",
    "session/session.py": "import demo.policy.base\n",
    "output/log.py": "import json\n",
    "metrics/score.py": "from demo.metrics import latency\nfrom demo.output.log import json\n",
    "metrics/latency.py": "",
    "report/curve.py": "",
    "train/trainer.py": "import accelerate\nfrom demo.policy import base\n",
    "cli.py": "from demo import __version__, session\n",
}


def run(tool: str, folder: Path) -> tuple[int, list[str]]:
    """Runs a check on a folder; returns its exit status and its lines, relative to the folder."""
    done = subprocess.run(
        [sys.executable, TOOLS / f"{tool}.py", folder], capture_output=True, text=True, cwd=folder
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package without offences, beside an empty module `torch`: only its name matters."""
    write(tmp_path, {"torch.py": "", "accelerate.py": ""})
    folders = {Path(name).parent for name in CLEAN_PACKAGE}
    write(tmp_path / "demo", {f"{folder}/__init__.py": "" for folder in folders} | CLEAN_PACKAGE)
    return tmp_path / "demo"


def test_imports_accepts_a_clean_package(package):
    assert run("check_imports", package) == (0, [])


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("modality/text.py", "import demo.policy.base", "policy is below it"),
        ("modality/text.py", "from demo.policy import base", "policy is below it"),
        ("modality/text.py", "from demo import policy", "policy is below it"),
        ("modality/text.py", "from ..policy import base", "policy is below it"),
        ("forward/__init__.py", "from .. import policy", "policy is below it"),
        ("core/schedule.py", "from ..forward import text", "forward is below it"),
        (
            "policy/base.py",
            "def decide():\n    from demo.session import session",
            "session is below",
        ),
        ("train/trainer.py", "from demo.session import session", "must not depend on session"),
        ("train/trainer.py", "import demo.serve", "must not depend on serve"),
        ("core/masks.py", "import transformers", "core knows no Hugging Face"),
        ("metrics/words.py", "import demo.core.schedule", "only output.log"),
        ("metrics/words.py", "from demo.output import log, other", "imports output.other"),
        ("metrics/latency.py", "def f():\n    import torch.nn", "imports torch: too heavy"),
        ("report/curve.py", "from demo.decisions import record", "only output, files, metrics"),
        ("report/curve.py", "from demo.policy import base", "only output, files, metrics"),
        ("report/curve.py", "def f():\n    import torch", "imports torch: too heavy"),
        ("report/curve.py", "import matplotlib.pyplot", "imports matplotlib: only inside"),
        ("output/log.py", "def f():\n    import torch", "imports torch: too heavy"),
        ("output/detokenize.py", "from torch import Tensor", "imports torch: only inside"),
        ("session/session.py", "import peft", "imports peft: only inside"),
        ("cli.py", "from demo import Session", "from the facade"),
        ("cli.py", "import demo", "from the facade"),
        ("helpers.py", "", "is no room"),
        ("serve/app.py", "", "no __init__.py"),
    ],
)
def test_imports_finds(package, name, line, expected):
    path = package / name
    before = path.read_text() if path.exists() else ""
    write(package, {name: before + line + "\n"})
    status, found = run("check_imports", package)
    assert status == 1
    assert len(found) == 1 and found[0].startswith(f"{name}:") and expected in found[0]
    number = len((before + line).splitlines()) or 1
    assert found[0].split()[0] == f"{name}:{number}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("output/detokenize.py", "def f():\n    import torch\n"),
        (
            "output/detokenize.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n",
        ),
        ("report/curve.py", "def curve():\n    import matplotlib\n"),
        ("report/curve.py", "from demo.decisions import trace\nfrom demo.metrics import latency\n"),
        ("metrics/latency.py", "from demo.output import log\n"),
    ],
)
def test_imports_allows_what_is_deferred_or_granted(package, name, content):
    write(package, {name: content})
    assert run("check_imports", package) == (0, [])


def test_imports_counts_public_names(package):
    names = [f"name{i}" for i in range(13)]
    write(package, {"__init__.py": f"__all__ = {names[:12]}\n"})
    assert run("check_imports", package)[0] == 0
    write(package, {"__init__.py": f"__all__ = {names}\n"})
    assert run("check_imports", package) == (1, ["__init__.py:1 13 public names, at most 12"])


def test_imports_finds_torch_that_is_loaded_by_way_of_the_facade(package):
    write(package, {"__init__.py": "from .core.schedule import torch\n__all__ = []\n"})
    status, found = run("check_imports", package)
    assert status == 1
    assert found == [
        "metrics/score.py:1 importing demo.metrics.score loads torch",
        "output/log.py:1 importing demo.output.log loads torch",
    ]


def test_imports_finds_a_package_that_cannot_be_imported(package):
    write(package, {"metrics/score.py": "raise RuntimeError('broken')\n"})
    status, found = run("check_imports", package)
    assert status == 1
    assert found == ["__init__.py:1 cannot be imported: RuntimeError: broken"]


def function(parameters: str, lines: int = 2) -> str:
    return f"def f({parameters}):\n" + "    x = 1\n" * (lines - 1)


@pytest.mark.parametrize(
    "content",
    [
        "\n" * 300,
        function("", lines=50),
        function("a, b, c, d, e, f, g"),
        "class A:\n    def f(self, a, b, c, d, e, f, *, g): ...\n",
        "@app.command()\n" + function("a, b, c, d, e, f, g, h"),
    ],
)
def test_size_accepts_what_is_at_the_limit(tmp_path, content):
    write(tmp_path, {"a.py": content})
    assert run("check_size", tmp_path) == (0, [])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\n" * 301, "a.py:1 module has 301 lines, at most 300"),
        (function("", lines=51), "a.py:1 f has 51 lines, at most 50"),
        ("@app.command()\n" + function("", lines=52), "a.py:2 f has 51 lines, at most 50"),
        ("async " + function("", lines=51), "a.py:1 f has 51 lines, at most 50"),
        (function("a, b, c, d, e, f, g, h"), "a.py:1 f has 8 parameters, at most 7"),
        (function("a, /, b, *c, d, e, f, g, **h"), "a.py:1 f has 8 parameters, at most 7"),
        (
            "class A:\n    def f(self, *, a, b, c, d, e, f, g, h): ...\n",
            "a.py:2 f has 8 parameters, at most 7",
        ),
    ],
)
def test_size_finds(tmp_path, content, expected):
    write(tmp_path, {"a.py": content})
    assert run("check_size", tmp_path) == (1, [expected])


DOCUMENTED = '''"""Module."""
from torch import nn


class Base:
    """Base.

    Args:
        width: inherited below.
    """

    width: int

    def run(self, x):
        """Contract."""


class Child(Base):
    """Child.

    Args:
        width, height: both of them,
            on two lines: with a colon.

    Attributes:
        area: a property.
        seen (set[int]): set in a method.
    """

    height: int

    def run(self, x):
        self.seen = x

    @property
    def area(self):
        """Area."""

    @area.setter
    def area(self, value): ...


class Layer(nn.Module):
    """A contract from elsewhere."""

    def forward(self, x): ...


def f(a, /, *rest, b_BTV: int, **options):
    """Function.

    Args:
        a: shape [B, T].
        *rest: more.
        b_BTV (dict[str, tuple(int, int)]): typed.
        options: the asterisks may be left out.

    Returns:
        nothing: at all.
    """

    def inner(): ...


def _private(): ...
'''


def test_docstrings_accepts_a_documented_module(tmp_path):
    write(tmp_path, {"a.py": DOCUMENTED})
    assert run("check_docstrings", tmp_path) == (0, [])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"""Module."""\n', "\n", "a.py:1 module has no docstring"),
        ("        a: shape", "        q: shape", "f: documents 'q', which is not in the signature"),
        ("        *rest:", "        *others:", "f: documents '*others', which is not in"),
        ("        options:", "        opts:", "f: documents 'opts', which is not in the signature"),
        ("width, height: both", "width, depth: both", "Child: documents 'depth', which is not in"),
        ("area: a prop", "volume: a prop", "Child: documents 'volume', which is not an attribute"),
        ("        a: shape", "        a is of shape", "f: cannot read under Args: 'a is of shape"),
        ("def _private(): ...", "def public(): ...", "public has no docstring"),
        ("def _private(): ...", "class Public: ...", "Public has no docstring"),
        ('"""Area."""', "...", "area has no docstring"),
        ('"""Contract."""', "...", "run has no docstring"),
        (
            "def _private(): ...",
            'def _private(x):\n    """P.\n\n    Args:\n        y: gone.\n    """',
            "_private: documents 'y', which is not in the signature",
        ),
    ],
)
def test_docstrings_finds(tmp_path, old, new, expected):
    assert DOCUMENTED.count(old) == 1
    write(tmp_path, {"a.py": DOCUMENTED.replace(old, new)})
    status, found = run("check_docstrings", tmp_path)
    assert status == 1
    assert expected in found[0]


@pytest.mark.parametrize("tool", ["check_imports", "check_size", "check_docstrings"])
def test_a_check_of_nothing_fails(tmp_path, tool):
    assert run(tool, tmp_path) == (1, [])


def test_contributing_has_the_rooms_in_the_order_that_is_checked() -> None:
    text = (TOOLS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = "import check_imports; print(', '.join(check_imports.ROOMS[:-1]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TOOLS)
    assert f"\n    {done.stdout}" in text
