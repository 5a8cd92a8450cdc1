"""Errors that a client is told, in the shape of OpenAI's, and the codes that close a connection."""

import logging
from typing import Any, Literal

ErrorType = Literal[
    "invalid_request_error", "authentication_error", "rate_limit_exceeded", "server_error"
]

_log = logging.getLogger(__name__)

# Close codes of a WebSocket (RFC 6455 and its registry). The client of OpenAI comes back after the
# last three.
CLOSED = 1000  # as both sides want
REFUSED = 1008  # no key, a foreign origin, a limit of the session
FAILED = 1011
DRAINING = 1012
OVERLOADED = 1013


class RequestError(Exception):
    """What a client did wrong, or cannot have now; the session goes on.

    Attributes:
        code: what it is, for programs.
        param: the field that is meant, dotted, if one is.
        retry_after_s: when it may be tried again, if that is known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        type: ErrorType = "invalid_request_error",
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.type, self.param = message, code, type, param
        self.retry_after_s = retry_after_s

    def as_dict(self, event_id: str | None = None) -> dict[str, Any]:
        """The object `error`; `event_id` is that of the client's event."""
        error: dict[str, Any] = {
            "type": self.type,
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "event_id": event_id,
        }
        if self.retry_after_s is not None:
            error["proactivellm"] = {"retry_after_s": self.retry_after_s}
        return error


def unknown_event(kind: str, who: str) -> RequestError:
    """An event that nothing of a session answers."""
    return RequestError(f"{who} knows no event {kind[:80]!r}", code="unknown_event", param="type")


def engine_failed(error: Exception, remedy: str) -> RequestError:
    """What a client is told of what broke an engine; the log has the rest."""
    _log.error("engine_failed", extra={"error": type(error).__name__}, exc_info=error)
    message = f"the engine failed; {remedy}"
    return RequestError(message, code="engine_failed", type="server_error")


def not_supported(what: str, param: str | None = None) -> RequestError:
    """Something of OpenAI's protocol that these models cannot do."""
    return RequestError(f"{what} is not supported here", code="not_supported", param=param)
