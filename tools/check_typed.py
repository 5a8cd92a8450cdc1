"""Whether a user's type checker is content: mypy --strict on README's Python, from outside.

Run: python tools/check_typed.py. The wheel is built and laid into an environment of its own, beside
the libraries of this one, so that its py.typed counts and not the folder src. Takes a minute.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import proactivellm
from common import ROOT


def main() -> int:
    """Builds the wheel, checks the program, and returns the exit status of mypy."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    names = ", ".join(proactivellm.__all__)
    program = f"from proactivellm import {names}\n\n{names.replace(', ', '; ')}\n" + "".join(blocks)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
        subprocess.run([*pip, "--no-deps", "-w", name, str(ROOT)], check=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        python = folder / "venv/bin/python"
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        place = Path(subprocess.check_output([python, "-c", where], text=True).strip())
        zipfile.ZipFile(next(folder.glob("*.whl"))).extractall(place)
        (place / "libraries.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        (folder / "program.py").write_text(program, encoding="utf-8")
        mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python)]
        # In that folder: the settings of this project are not those of a user.
        return subprocess.run([*mypy, "program.py"], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
