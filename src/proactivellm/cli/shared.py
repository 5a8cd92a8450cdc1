"""What the commands share: checks, progress, tables. Heavy imports are inside."""

import importlib.util
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from proactivellm.output.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

NARROW_POLICY = 20  # cells of the first column of a table that is too wide for its terminal
LOWEST_RATE = 0.01  # words per minute
SILENCE_S = 20.0  # between lines of progress, where there is no terminal
Progress = Callable[[str, int, int], None]  # what, how many are done, how many in all


class PolicyCommand(TyperCommand):
    """A command whose help ends with the table of policies, made only then: it loads torch."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help, then the table."""
        super().format_help(ctx, formatter)
        from rich import box
        from rich.console import Console
        from rich.table import Table

        from proactivellm.policy.calibration import TARGETS
        from proactivellm.policy.endogenous import ThresholdPolicy
        from proactivellm.policy.spec import POLICIES, available_policies

        rows = Table(box=box.SIMPLE, title="Policies, as NAME:VALUE or NAME:KEY=VALUE,KEY=VALUE")
        for heading in ("name", "keys", "what it does"):
            rows.add_column(heading, no_wrap=heading == "name")
        for row in available_policies():
            keys = (key for key in row.keys if key not in TARGETS)
            rows.add_row(row.name, ", ".join(keys), row.summary)
        kinds = [n for n, kind in POLICIES.items() if issubclass(kind, ThresholdPolicy)]
        rows.caption = (
            f"Of a calibrated model, {', '.join(kinds)} take one of {', '.join(TARGETS)} for the "
            "threshold, such as entropy:laal=3."
        )
        Console().print(rows)


def warn(message: str) -> None:
    """Tells something on standard error.

    Args:
        message: one line.
    """
    print(printable(message), file=sys.stderr, flush=True)


@contextmanager
def quiet_imports() -> Iterator[None]:
    """No warnings of torchao about kernels of other devices; transformers imports it if it can."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def check_rate(rate_wpm: float | None, listens: bool = False) -> None:
    """Checks an arrival rate.

    Args:
        rate_wpm: words per minute, if given.
        listens: whether the sources are recordings.

    Raises:
        ValueError: it is no number that a clock can keep, or recordings have their own.
    """
    if rate_wpm is not None and listens:
        raise ValueError(
            f"--rate {rate_wpm:g} is for text: recordings arrive as they were spoken, with "
            "`stream --real-time` on the clock as well"
        )
    if rate_wpm is not None and not LOWEST_RATE <= rate_wpm < math.inf:
        raise ValueError(f"--rate {rate_wpm:g}: give {LOWEST_RATE} words per minute or more")


def check_train_extra(needs_peft: bool) -> None:
    """Checks that what training needs is installed.

    Args:
        needs_peft: whether adapters are trained.

    Raises:
        ValueError: names what is missing, and the extra that brings it.
    """
    wanted = ["accelerate"] + ["peft"] * needs_peft
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"training needs {' and '.join(missing)}, which the extra `train` brings: "
            "pip install 'proactivellm[train]'"
        )


def table_file(out: Path | None, folder: Path | None) -> Path:
    """Where a calibration table goes, checked before anything is measured.

    Args:
        out: file or folder asked for.
        folder: that of the model, in which it cannot go if it lies in the cache of the hub.

    Returns:
        The file.

    Raises:
        ValueError: there is no such place, or it cannot be written to.
    """
    from proactivellm.model.hub import hub_id
    from proactivellm.policy.calibration import CALIBRATION_FILE

    place = out or (None if folder is None or hub_id(folder) else folder)
    if place is None:
        raise ValueError("a model of the hub has no folder to hold the table: give --out FILE")
    file = place / CALIBRATION_FILE if place.is_dir() else place
    places = [file.parent] + [file] * file.exists()  # it is replaced by one written beside it
    if not all(os.access(place, os.W_OK) for place in places):
        raise ValueError(f"cannot write {file}: give a writable file or folder with --out")
    return file


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Progress on standard error: bars on a terminal, otherwise a line now and then.

    Yields:
        What to call with a name, how many are done, how many there are.
    """
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
                warn(f"{name}: {done}/{total}{left}")
                told_s = now_s

        yield show


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints scores: all columns into a pipe, as many as fit on a terminal.

    Args:
        rows: scores, one object per policy.
    """
    from rich.console import Console

    from proactivellm.metrics.report import table

    safe = [{**row, "policy": printable(str(row["policy"]))} for row in rows]
    result, console = table(safe), Console(markup=False, emoji=False)
    unbounded = console.options.update(max_width=10_000)
    if not console.is_terminal:
        width = console.measure(result, options=unbounded).maximum
        console = Console(width=width, markup=False, emoji=False)
    while console.measure(result, options=unbounded).maximum > console.width:
        if result.columns[0].max_width is None:
            result.columns[0].max_width = NARROW_POLICY
        elif len(result.columns) > 1:
            result.columns.pop()
        else:
            break
    console.print(result)


def print_wide(table: "Table") -> None:
    """Prints a table; into a pipe as wide as it is.

    Args:
        table: of rich.
    """
    from rich.console import Console

    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        unbounded = console.options.update(max_width=10_000)
        width = console.measure(table, options=unbounded).maximum
        console = Console(width=width, markup=False, emoji=False)
    console.print(table)


def draw_curve(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws quality against latency; warns where it cannot, as the rest is done.

    Args:
        rows: scores, one object per policy.
        path: picture to write.
    """
    from proactivellm.metrics.plots import quality_latency_curve

    try:
        quality_latency_curve(rows, path)
    except (ImportError, ValueError) as error:
        warn(f"warning: no curve was drawn: {error}")
