"""A lock that refuses a second caller: in the middle of a step, an engine has no valid state."""

import threading
from types import TracebackType

_REMEDY = (
    "the engine is in the middle of another call: call it from one thread at a time (hold a lock "
    "of your own around its methods, give every thread an engine, or drive it by a `Worker`), and "
    "not from within a policy"
)


class Exclusive:
    """A context that only one call can be in; a second one fails instead of waiting.

    To wait would hide a mistake: which stream's writes a call returns would depend on who came
    first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(_REMEDY)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()
