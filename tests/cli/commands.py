"""Commands as run from a shell: exit code, standard output and error; a tiny model for them."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.models import save_tiny

PROGRAM = [sys.executable, "-c", "from proactivellm.cli import main; main()"]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
MAX_NEW_TOKENS = 12  # a random model ends no target by itself


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that tells of a user's mistake."""
        assert self.code == 2 and not self.out, self
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


Run = Callable[..., Done]


def listen_to_ctrl_c() -> None:
    """In a new process: SIGINT interrupts, also where the tests were started to ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def save_short(folder: Path) -> str:
    """Saves a tiny model whose targets have at most MAX_NEW_TOKENS; returns its folder."""
    save_tiny("qwen3", folder)
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text()) | {"max_new_tokens": MAX_NEW_TOKENS}
    file.write_text(json.dumps(settings))
    return str(folder)


def write_lines(path: Path, *lines: str) -> Path:
    """A text file with these lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
