"""The command line: `proactivellm stream | show | evaluate | score | compare | study | ...`.

A user's mistake ends in one line `error: ...` and exit code 2; Ctrl-C in 130, SIGTERM in 143;
output that nobody reads any more in 141; a bug in a traceback.
"""

import gc
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import typer

from proactivellm.cli import models
from proactivellm.cli.app import app
from proactivellm.cli.ending import (
    USAGE_ERROR,
    explain_limit,
    explain_os_error,
    explain_usage,
    flush_output,
    leave_pipe,
    open_standard_streams,
    refuse,
)
from proactivellm.cli.messages import warn
from proactivellm.cli.stopping import INTERRUPTED, Stops

__all__ = ["main"]

# In the order in which the help lists them; each registers itself.
for _name in (
    *("stream", "show", "evaluate", "score", "compare"),
    *("calibrate", "train", "reinforce", "study", "bench", "serve", "client", "catalogue"),
    *("pull", "data", "lens"),
):
    import_module(f"proactivellm.cli.{_name}")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits; `argv` is what follows the program's name (None = sys.argv)."""
    # Threads of torch that wait for each other keep the cores busy by default: beside another busy
    # process a stream is ten times slower then. Read when torch is loaded, which commands do.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    models.process_is_ours = argv is None
    stops = Stops()
    with warnings.catch_warnings(), stops.installed():
        warnings.showwarning = _show_warning
        try:
            sys.exit(_exit_code(argv, stops))
        finally:
            gc.unfreeze()  # what `loading` froze: the process may have been here before the command


def _exit_code(argv: Sequence[str] | None, stops: Stops) -> int:
    """Runs a command; every mistake of a user's ends in one line."""
    try:
        open_standard_streams()
        code = app(args=argv, prog_name="proactivellm", standalone_mode=False, obj=stops)
        flush_output()
        return stops.code if code == INTERRUPTED else int(code or 0)
    except KeyboardInterrupt:
        return stops.code
    except SystemExit as end:  # libraries below end with 1 at once where nobody reads on
        completes = "_PROACTIVELLM_COMPLETE" in os.environ
        return leave_pipe() if end.code == 1 and not completes else int(end.code or 0)
    except BrokenPipeError:
        return leave_pipe()
    except USAGE_ERROR as error:
        refuse([explain_usage(error)])
    except typer.Abort as error:
        refuse([f"the input ended too early: {error.__cause__ or 'nothing was read'}"])
    except ValueError as error:
        refuse(str(error).splitlines())
    except OSError as error:
        refuse([explain_os_error(_named(error))])
    except (RuntimeError, MemoryError) as error:
        if reason := explain_limit(error):
            refuse([reason])
        raise


def _named(error: OSError) -> OSError:
    """The error of standard output, if that cannot be written: then it says so once more."""
    try:
        flush_output()
    except OSError as again:
        return again
    return error


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warn(f"warning: {message}")
