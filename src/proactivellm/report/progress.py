"""How far a long task is: what it calls, and what shows it on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from proactivellm.output.printable import printable

SILENCE_S = 20.0  # between lines of progress, where there is no terminal
Progress = Callable[[str, int, int], None]  # what, how many are done, how many in all


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Progress on standard error: bars on a terminal, otherwise a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}
        began: dict[str, tuple[float, int]] = {}  # when, and what was done before
        told_s = time.monotonic()

        def show(name: str, done: int, total: int) -> None:
            nonlocal told_s
            now_s = time.monotonic()
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
                began[name] = now_s, done
            bars.update(tasks[name], completed=done)
            if (done == total or now_s - told_s > SILENCE_S) and not console.is_terminal:
                began_s, before = began[name]
                pace_s = (now_s - began_s) / max(done - before, 1)
                left = f", about {pace_s * (total - done):.0f} s left" if done < total else ""
                line = printable(f"{name}: {done}/{total}{left}")
                print(line, file=sys.stderr, flush=True)
                told_s = now_s

        yield show
