"""A Ray cluster: the one that RAY_ADDRESS names, else one of this machine, which ends with us."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ADDRESS = "RAY_ADDRESS"  # Ray's own variable
# On other systems than Linux it says whether Ray may be reached from other machines; without that
# it listens on 127.0.0.1. Read when Ray is imported.
_FOR_MANY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STORE_BYTES = 256 << 20  # what is passed around here are texts


def import_ray(who: str) -> Any:
    """The package, to be imported by this before anything else of it.

    A cluster that it starts is then for this machine alone.

    Args:
        who: what needs it, for the message.

    Raises:
        ValueError: it is not installed; names the remedy.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # lines that differ in numbers are not the same
    if not os.environ.get(ADDRESS):
        os.environ.setdefault(_FOR_MANY, "0")
    try:
        import ray
    except ImportError as error:
        remedy = "pip install 'proactivellm[ray]'"
        raise ValueError(f"{who} needs {error.name}, which is not installed: {remedy}") from None
    return ray


@contextmanager
def cluster(who: str, logs: bool = True) -> Iterator[Any]:
    """Connects with the cluster, until the context is left; yields the package `ray`.

    A program that is connected already stays so.

    Args:
        who: what needs it, for messages.
        logs: whether what is written to standard error there is also written here.

    Raises:
        ValueError: Ray is not installed, or there is no cluster to be had.
    """
    # Ray puts its own handlers in the place of those that a command has.
    handlers = [(number, signal.getsignal(number)) for number in _SIGNALS]
    ray = import_ray(who)
    if ray.is_initialized():
        yield ray
        return
    try:
        _connect(ray, logs)
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers:
                signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, logs: bool) -> None:
    address = os.environ.get(ADDRESS)
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": logs}
    if not address:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray tells its makers
        options |= {"address": "local", "include_dashboard": False}
        options |= {"object_store_memory": _STORE_BYTES}
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises that itself, and many kinds below it
        where = f"{ADDRESS}={address}: no cluster there" if address else "no cluster can be started"
        raise ValueError(f"{where}: {str(error).splitlines()[0]}") from None
