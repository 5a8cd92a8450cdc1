"""What the commands share: checks, progress, tables. Heavy imports are inside."""

import importlib.util
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from proactivellm.output.printable import printable

if TYPE_CHECKING:
    pass

LOWEST_RATE = 0.01  # words per minute


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
    from proactivellm.backbone.hub import hub_id
    from proactivellm.policy.calibration import CALIBRATION_FILE

    place = out or (None if folder is None or hub_id(folder) else folder)
    if place is None:
        raise ValueError("a model of the hub has no folder to hold the table: give --out FILE")
    file = place / CALIBRATION_FILE if place.is_dir() else place
    places = [file.parent] + [file] * file.exists()  # it is replaced by one written beside it
    if not all(os.access(place, os.W_OK) for place in places):
        raise ValueError(f"cannot write {file}: give a writable file or folder with --out")
    return file
