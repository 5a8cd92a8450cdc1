"""One connection: its messages become events of a session, whose events become messages."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from proactivellm.serve.errors import DRAINING, FAILED, OVERLOADED, REFUSED, RequestError
from proactivellm.serve.sessions import Dialogue, Session, Sessions
from proactivellm.serve.settings import Settings

_log = logging.getLogger(__name__)

_ENDS = 1000  # by which a client says that it will not come back; a lost connection has 1005
_FLUSH_S = 5.0  # for the last events of a session


class Connection:
    """A client's connection with its session."""

    def __init__(
        self, socket: WebSocket, session: Session, sessions: Sessions, settings: Settings
    ) -> None:
        self._socket, self._session = socket, session
        self._sessions, self._settings = sessions, settings
        self._bye: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._allowed_s = 0.0  # when the next event may be taken

    def leave(self, code: int, reason: str) -> None:
        """Close it, after what is to be sent; the first code counts."""
        if not self._bye.done():
            self._bye.set_result((code, reason))

    async def run(self) -> None:
        """Until one of both sides leaves; the session may go on."""
        session = self._session
        session.connection = self
        receiving = asyncio.create_task(self._receive())
        sending = asyncio.create_task(self._send())
        either: set[asyncio.Future[Any]] = {receiving, sending, self._bye}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done() and not self._bye.done():
                await self._left(receiving)
            if self._bye.done():
                if session.connection is self:
                    await asyncio.wait({sending}, timeout=_FLUSH_S)
                await self._close(*self._bye.result())
        finally:
            receiving.cancel()
            sending.cancel()
            if session.connection is self:
                self._sessions.leave(session)

    async def _left(self, receiving: "asyncio.Task[int | None]") -> None:
        """The client has left, or its event brought down who handles it."""
        try:
            code = receiving.result()
        except Exception as error:
            _log.error("session_failed", extra={"session": self._session.tag}, exc_info=error)
            failed = RequestError("the server failed", code="failed", type="server_error")
            await self._session.send({"type": "error", "error": failed.as_dict()})
            await self._sessions.end(self._session)
            self.leave(FAILED, "the server failed")
        else:
            if code == _ENDS and self._session.connection is self:
                await self._sessions.end(self._session)

    async def _receive(self) -> int | None:
        """Until the client leaves: with which code. None if it is asked to leave."""
        session = self._session
        if session.handling is not None:  # of an earlier connection
            await asyncio.wait({session.handling})
        while True:
            try:
                async with asyncio.timeout(self._left_s()):
                    message = await self._socket.receive()
            except TimeoutError:
                if self._left_s() > 0:
                    continue
                await self._expire()
                return None
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 1005)
            session.touched_s = time.monotonic()
            await self._pace()
            # What an event brings about is not cut short when the connection is.
            session.handling = asyncio.create_task(self._take(message))
            await asyncio.shield(session.handling)

    async def _take(self, message: Mapping[str, Any]) -> None:
        event_id = None
        try:
            event = _event(message)
            event_id = event.get("event_id")
            if not isinstance(event_id, str | None):
                event_id = None
                raise RequestError(
                    "event_id: give a string", code="invalid_event", param="event_id"
                )
            await self._session.dialogue.handle(event)
        except RequestError as error:
            self._sessions.metrics.refused(error.code)
            await self._session.send({"type": "error", "error": error.as_dict(event_id)})

    async def _send(self) -> None:
        outbox = self._session.outbox
        with suppress(WebSocketDisconnect, TimeoutError, RuntimeError):
            while (text := await outbox.next()) is not None:
                if self._session.connection is not self:
                    return
                async with asyncio.timeout(self._settings.send_s):
                    await self._socket.send_text(text)
                if self._session.connection is not self:
                    return
                outbox.sent()

    async def _pace(self) -> None:
        """Wait where events come faster than they may; a second's worth may come at once."""
        now_s, each_s = time.monotonic(), 1 / self._settings.events_per_s
        self._allowed_s = max(self._allowed_s + each_s, now_s - 1)
        if self._allowed_s > now_s:
            await asyncio.sleep(self._allowed_s - now_s)

    def _left_s(self) -> float:
        """Seconds until a limit of the session is reached."""
        session, settings, now_s = self._session, self._settings, time.monotonic()
        idle_s = session.touched_s + settings.idle_s - now_s
        return min(idle_s, session.began_s + settings.session_s - now_s)

    async def _expire(self) -> None:
        old = time.monotonic() - self._session.began_s >= self._settings.session_s
        code = "session_expired" if old else "session_idle"
        limit_s = self._settings.session_s if old else self._settings.idle_s
        what = "lasted" if old else "was idle for"
        error = RequestError(f"the session {what} {limit_s:g} s, which is the limit", code=code)
        await self._session.send({"type": "error", "error": error.as_dict()})
        await self._sessions.end(self._session)
        self.leave(REFUSED, code)

    async def _close(self, code: int, reason: str) -> None:
        with suppress(WebSocketDisconnect, TimeoutError, RuntimeError):
            async with asyncio.timeout(1):
                await self._socket.close(code, reason)


async def talk(
    socket: WebSocket,
    sessions: Sessions,
    settings: Settings,
    make: Callable[[Session], Dialogue],
) -> None:
    """Accept a connection, find or open its session, and talk until one side leaves.

    Args:
        make: the dialogue of a new session; RequestError if what is asked for cannot be had.
    """
    offered = socket.scope.get("subprotocols", ())
    await socket.accept("realtime" if "realtime" in offered else None)
    if sessions.draining:
        await socket.close(DRAINING, "the server ends")
        return
    try:
        session = await _session(socket, sessions, make)
    except RequestError as error:
        sessions.metrics.refused(error.code)
        told = {"type": "error", "event_id": "event_0", "error": error.as_dict()}
        with suppress(WebSocketDisconnect, RuntimeError):
            await socket.send_text(json.dumps(told))
            full = error.code == "too_many_sessions"
            await socket.close(OVERLOADED if full else REFUSED, error.code)
        return
    await Connection(socket, session, sessions, settings).run()


async def _session(
    socket: WebSocket, sessions: Sessions, make: Callable[[Session], Dialogue]
) -> Session:
    query = socket.query_params
    if (name := query.get("session")) is not None:
        after = query.get("after", "")
        if not (after.isascii() and after.isdigit() and len(after) < 16):
            raise RequestError(
                "after: give the proactivellm_seq of the last event you have, or 0",
                code="resume_failed",
                param="after",
            )
        session = sessions.resume(name, int(after))
        resumed = {"type": "proactivellm.resumed", "source_size": session.dialogue.taken}
        session.resuming = asyncio.create_task(session.send(resumed))
        return session
    session = await sessions.open()
    try:
        session.dialogue = make(session)
    except RequestError:
        sessions.drop(session)
        raise
    await session.dialogue.begin()
    return session


def _event(message: Mapping[str, Any]) -> dict[str, Any]:
    text = message.get("text")
    if text is None:
        raise RequestError("send text messages, not binary ones", code="invalid_message")
    try:
        event = json.loads(text)
        if "\\u" in text:  # by escapes, half a surrogate pair gets in, which is no character
            json.dumps(event, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise RequestError("the message is not JSON of Unicode", code="invalid_json") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise RequestError(
            "an event is an object with a string `type`", code="invalid_event", param="type"
        )
    return event
