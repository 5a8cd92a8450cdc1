"""Structured log lines on standard error: what happened, to which session; never what was said."""

import json
import logging
import sys
import time
import traceback

# What a log line may carry beside its name, all of it the server's own.
_FIELDS = ("session", "model", "code", "status", "error", "seconds", "tokens", "events")
_ROOT = "proactivellm.serve"


class Formatter(logging.Formatter):
    """One line for each record; of an exception its type and where it came from, not its text."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        # Lines of other packages are told by where they come from: their text may quote a user.
        own = record.name.startswith(_ROOT)
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "event": record.msg if own else f"{record.name}:{record.lineno}",
        }
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            line["error"] = record.exc_info[0].__name__
            line["at"] = [f"{frame.filename}:{frame.lineno}" for frame in frames[-8:]]
        if self._as_json:
            return json.dumps(line)
        return " ".join(f"{name}={value}" for name, value in line.items())


class Handler(logging.StreamHandler):
    """A full disk or a closed pipe under the log does not disturb what is served."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing can be said."""


def set_up(log_format: str) -> None:
    """Send the log to standard error; of uvicorn only what goes wrong, as its lines have URLs."""
    handler = Handler(sys.stderr)
    handler.setFormatter(Formatter(log_format == "json"))
    for name, level in ((_ROOT, logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(level)
