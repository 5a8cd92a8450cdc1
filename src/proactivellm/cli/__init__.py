"""The command line: `proactivellm stream | show | evaluate | score | compare | study | ...`.

A user's mistake ends in one line `error: ...` and exit code 2; Ctrl-C in 130, SIGTERM in 143; a bug
in a traceback.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from proactivellm.cli import bench as _bench  # noqa: F401  (registers its command)
from proactivellm.cli import scoring as _scoring  # noqa: F401  (registers its commands)
from proactivellm.cli import show as _show  # noqa: F401
from proactivellm.cli import study as _study  # noqa: F401
from proactivellm.cli.commands import app
from proactivellm.cli.stopping import INTERRUPTED, Stops

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits.

    Args:
        argv: arguments after the program's name; those of the process if left out.

    Raises:
        SystemExit: always.
    """
    # Threads of torch that wait for each other keep the cores busy by default: beside another busy
    # process a stream is ten times slower then. Read when torch is loaded, which commands do.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    stops = Stops()
    with warnings.catch_warnings(), stops.installed():
        warnings.showwarning = _show_warning
        try:
            app(args=argv, prog_name="proactivellm", obj=stops)
        except KeyboardInterrupt:
            sys.exit(stops.code)
        except SystemExit as end:
            sys.exit(stops.code if end.code == INTERRUPTED else end.code)
        except ValueError as error:
            _fail(str(error))
        except OSError as error:
            _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    for line in message.splitlines():  # a recipe may have several mistakes, one a line
        print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)
