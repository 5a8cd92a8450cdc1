"""Who may connect: keys, by header or by the subprotocol of a browser, and origins of web pages."""

import binascii
import hmac
import json
from base64 import b64decode
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from proactivellm.serve.errors import RequestError
from proactivellm.serve.settings import Settings

LOCAL_NAMES = ("127.0.0.1", "::1", "localhost")
OPEN_PATHS = ("/health",)  # answered without a key
# A browser, which cannot set headers on a WebSocket, offers its key as a subprotocol.
_KEY_PROTOCOL = "openai-insecure-api-key."


class Access:
    """Middleware before everything else: what it refuses reaches no route."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._keys = [key.get_secret_value().encode() for key in settings.api_keys]
        self._origins = settings.origins
        self._is_local = settings.host in LOCAL_NAMES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            refused = self._refused(scope)
            if refused is not None:
                await _refuse(scope, send, *refused)
                return
        await self._app(scope, receive, send)

    def _refused(self, scope: Scope) -> tuple[int, RequestError] | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if not self._knows_origin(scope, headers):
            message = "pages of this origin may not connect; the server allows it by --origin"
            return 403, RequestError(message, code="origin_not_allowed")
        if self._keys and scope["path"] not in OPEN_PATHS and not self._has_key(scope, headers):
            message = "no valid API key: send it as `Authorization: Bearer KEY`"
            return 401, RequestError(message, code="invalid_api_key", type="authentication_error")
        return None

    def _has_key(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        given = _keys_authorized(headers.get(b"authorization", b""))
        given += _keys_offered(scope.get("subprotocols", ()))
        # All are compared, each in the same time whatever it shares with the true ones.
        matches = [hmac.compare_digest(one, key) for one in given for key in self._keys]
        return any(matches)

    def _knows_origin(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Programs send none; a page of this server itself may connect.

        A server for this machine alone is its own by the names of this machine only: any other name
        could be one that a foreign page was given, and that was made to lead here (DNS rebinding).
        """
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or "*" in self._origins or origin in self._origins:
            return True
        own = headers.get(b"host", b"").decode("latin-1")
        if self._is_local and urlsplit(f"//{own}").hostname not in LOCAL_NAMES:
            return False
        return origin in (f"http://{own}", f"https://{own}")


def _keys_authorized(header: bytes) -> list[bytes]:
    """As a bearer token, or the password that a browser asks for when it opens the page."""
    scheme, _, key = header.partition(b" ")
    if scheme.lower() == b"bearer":
        return [key.strip()]
    if scheme.lower() == b"basic":
        try:
            return [b64decode(key.strip(), validate=True).partition(b":")[2]]
        except binascii.Error:
            return []
    return []


def _keys_offered(protocols: Iterable[str]) -> list[bytes]:
    found = [name for name in protocols if name.startswith(_KEY_PROTOCOL)]
    return [name.removeprefix(_KEY_PROTOCOL).encode("utf-8", "replace") for name in found]


async def _refuse(scope: Scope, send: Send, status: int, error: RequestError) -> None:
    """Answer over HTTP, which a WebSocket has not left yet."""
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    headers: list[tuple[bytes, Any]] = [(b"content-type", b"application/json")]
    if status == 401:
        asks = b"Basic realm=proactivellm" if scope["path"] == "/" else b"Bearer"
        headers.append((b"www-authenticate", asks))
    body = json.dumps({"error": error.as_dict()}).encode()
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
