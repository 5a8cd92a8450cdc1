"""Commands as run from a shell: exit code, standard output and error; a tiny model for them."""

import json
import multiprocessing
import os
import selectors
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.models import save_tiny

from proactivellm.cli import main

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


class Forked:
    """A command in a process of its own, with pipes; a fork, as imports take most of the time.

    `stdin`, `stdout` and `stderr` are this side of its pipes, as bytes, unbuffered.
    """

    def __init__(self, *arguments: object) -> None:
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
        words = [str(argument) for argument in arguments]
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_become, args=(words, theirs, ours))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks, where there are threads
            self.process.start()
        for descriptor in theirs:
            os.close(descriptor)
        self.stdin = open(ours[0], "wb", buffering=0)
        self.stdout, self.stderr = (open(each, "rb", buffering=0) for each in ours[1:])

    def __enter__(self) -> "Forked":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.join()
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Sends it a signal."""
        assert self.process.pid
        os.kill(self.process.pid, number)

    def communicate(self) -> tuple[bytes, bytes]:
        """Ends its input and waits for its end; returns the rest of its output and errors."""
        self.stdin.close()
        rest = {self.stdout: b"", self.stderr: b""}
        with selectors.DefaultSelector() as waiting:
            for pipe in rest:
                waiting.register(pipe, selectors.EVENT_READ)
            while waiting.get_map():
                for key, _ in waiting.select():
                    pipe = self.stdout if key.fileobj is self.stdout else self.stderr
                    rest[pipe] += (read := pipe.read(1 << 16))
                    if not read:
                        waiting.unregister(pipe)
        self.process.join()
        return rest[self.stdout], rest[self.stderr]


def _become(arguments: Sequence[str], theirs: Sequence[int], ours: Sequence[int]) -> None:
    """Makes this fork a command that a shell has started with these pipes."""
    for descriptor in ours:
        os.close(descriptor)
    for number, descriptor in enumerate(theirs):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # or they warn of the fork
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(arguments)


def save_short(folder: Path, chat: bool = False) -> str:
    """Saves a tiny model whose targets have at most MAX_NEW_TOKENS; returns its folder."""
    return shortened(save_tiny("qwen3", folder, chat=chat))


def shortened(folder: Path) -> str:
    """Limits targets of a saved model to MAX_NEW_TOKENS; returns its folder."""
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text()) | {"max_new_tokens": MAX_NEW_TOKENS}
    file.write_text(json.dumps(settings))
    return str(folder)


def write_lines(path: Path, *lines: str) -> Path:
    """A text file with these lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
