"""Sessions: what outlives a connection, so that a client may come back and miss nothing."""

import asyncio
import hashlib
import json
import logging
import secrets
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from proactivellm.serve.errors import CLOSED, DRAINING, REFUSED, RequestError
from proactivellm.serve.metrics import Metrics
from proactivellm.serve.session_ids import new_id
from proactivellm.serve.settings import Settings

_log = logging.getLogger(__name__)

_LAST_S = 1.0  # for the last events of a session


class Outbox:
    """The events of a session, numbered from 1; those sent last stay, to be sent again.

    Args:
        unsent: events that may wait to be sent; who puts more waits.
        replay: events that stay after they were sent.
    """

    def __init__(self, unsent: int, replay: int) -> None:
        self._most_unsent, self._replay = unsent, replay
        self._kept: deque[str] = deque()
        self._sent = self.last = 0  # numbers
        self._has_room, self._has_news = asyncio.Event(), asyncio.Event()
        self._closed = False

    async def put(self, event: dict[str, Any]) -> None:
        """Append an event, in its turn, when there is room; dropped once the outbox is closed."""
        while not self._closed and self.last - self._sent >= self._most_unsent:
            self._has_room.clear()
            await self._has_room.wait()
        if not self._closed:
            self.last += 1
            self._kept.append(json.dumps({**event, "proactivellm_seq": self.last}))
            self._has_news.set()

    async def next(self) -> str | None:
        """The first event that is not sent, as JSON; None if no more will come."""
        while self._sent == self.last:
            if self._closed:
                return None
            self._has_news.clear()
            await self._has_news.wait()
        return self._kept[self._sent - self.last]

    def sent(self) -> None:
        """The event of `next` is on its way."""
        self._sent += 1
        while len(self._kept) > self.last - self._sent + self._replay:
            self._kept.popleft()
        self._has_room.set()

    def rewind(self, after: int) -> None:
        """Go on after this number; RequestError if that is not kept, or was never reached."""
        if not self.last - len(self._kept) <= after <= self.last:
            raise RequestError(
                f"event {after + 1} of this session is not kept any more"
                if 0 <= after < self.last
                else f"the session has {self.last} events, and none after {after}",
                code="resume_failed",
                param="after",
            )
        self._sent = after
        self._has_news.set()

    def close(self) -> None:
        """Nothing is put any more; what waits may still be sent."""
        self._closed = True
        self._has_news.set()
        self._has_room.set()


class Dialogue(ABC):
    """What a session speaks with its client; one for each kind of session."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether something is being written, which a server that ends waits for."""

    @property
    @abstractmethod
    def taken(self) -> float:
        """How much of the source that still arrives has arrived, as its limits count."""

    @abstractmethod
    async def begin(self) -> None:
        """The session is there: say so."""

    @abstractmethod
    async def handle(self, event: dict[str, Any]) -> None:
        """Do what an event of the client asks for.

        RequestError if it cannot be done: the client is told, and the session goes on.
        """

    @abstractmethod
    async def end(self) -> None:
        """The session is over: give back what it holds; idempotent."""


class Connected(Protocol):
    """A connection with a client, as a session knows it."""

    def leave(self, code: int, reason: str) -> None:
        """Close it, after what is to be sent."""
        ...


class Session:
    """One session and its events.

    Attributes:
        dialogue: set by who opens the session.
        connection: with its client, while there is one.
        touched_s: when something came from the client, or was written for it.
    """

    dialogue: Dialogue

    def __init__(
        self, settings: Settings, end_soon: Callable[["Session"], None], place: str
    ) -> None:
        self._end_soon = end_soon
        self.id = new_id(place)
        self.outbox = Outbox(settings.unsent_events, settings.replay_events)
        self.began_s = self.touched_s = time.monotonic()
        self.connection: Connected | None = None
        self.leaving: asyncio.TimerHandle | None = None  # ends it when its client stays away
        self.handling: asyncio.Task[None] | None = None  # of a client's event
        self.resuming: asyncio.Task[None] | None = None  # the event that tells of it
        self._ended = False

    @property
    def tag(self) -> str:
        """Names it in a log, where its id would let others go on with it."""
        return hashlib.sha256(self.id.encode()).hexdigest()[:12]

    async def send(self, event: dict[str, Any]) -> None:
        """Send an event, with an id of its own, when the client keeps up."""
        self.touched_s = time.monotonic()
        await self.outbox.put({"event_id": f"event_{secrets.token_hex(10)}", **event})

    def finish(self) -> None:
        """All is said: it ends, and its client is told so once it has all events."""
        connection = self.connection
        self._end_soon(self)
        if connection is not None:
            connection.leave(CLOSED, "the session is closed")

    async def end(self) -> None:
        """Give back all that it holds; idempotent."""
        if not self._ended:
            self._ended = True
            with suppress(TimeoutError):  # a client that keeps up learns how its responses end
                async with asyncio.timeout(_LAST_S):
                    await self.dialogue.end()
            self.outbox.close()
            await self.dialogue.end()


class Sessions:
    """The sessions of a server.

    Args:
        place: see `session_ids`.

    Attributes:
        draining: whether no new ones are taken, as the server is about to end.
    """

    def __init__(self, settings: Settings, metrics: Metrics, place: str = "") -> None:
        self._settings, self.metrics, self._place = settings, metrics, place
        self._open: dict[str, Session] = {}
        self._endings: set[asyncio.Task[None]] = set()  # held, as the loop does not
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    @property
    def busy(self) -> bool:
        """Whether anything is being written."""
        return any(session.dialogue.busy for session in self._open.values())

    async def open(self) -> Session:
        """A new session; RequestError if as many are open as the settings allow.

        The one whose client left first makes room.
        """
        if len(self._open) >= self._settings.sessions:
            await self._drop_one_left()
        if len(self._open) >= self._settings.sessions:
            raise RequestError(
                f"{len(self._open)} sessions are open, which is as many as this server takes",
                code="too_many_sessions",
                type="rate_limit_exceeded",
                retry_after_s=5.0,
            )
        session = Session(self._settings, self._end_soon, self._place)
        self._open[session.id] = session
        _log.info("session_opened", extra={"session": session.tag})
        return session

    def resume(self, name: str, after: int) -> Session:
        """The session of that id, which goes on after an event; RequestError if it cannot."""
        session = self._open.get(name)
        if session is None:
            raise RequestError(
                "there is no such session, or not any more",
                code="session_not_found",
                param="session",
            )
        session.outbox.rewind(after)
        if session.leaving is not None:
            session.leaving.cancel()
            session.leaving = None
        if session.connection is not None:
            session.connection.leave(REFUSED, "another connection goes on with this session")
            session.connection = None
        return session

    def leave(self, session: Session) -> None:
        """Its client is gone, and may come back for a while; nothing if it has ended."""
        session.connection = None
        if session.id not in self._open:
            return
        if self._settings.resume_s == 0:
            self._end_soon(session)
            return
        loop = asyncio.get_running_loop()
        session.leaving = loop.call_later(self._settings.resume_s, self._end_soon, session)

    async def end(self, session: Session) -> None:
        """It is over; idempotent."""
        if self._open.pop(session.id, None) is not None:
            seconds = round(time.monotonic() - session.began_s, 3)
            told = {"session": session.tag, "seconds": seconds, "events": session.outbox.last}
            _log.info("session_ended", extra=told)
        await session.end()

    def drop(self, session: Session) -> None:
        """It never came about."""
        self._open.pop(session.id, None)

    async def drain(self) -> None:
        """Take no more sessions, and end those that are open, as soon as nothing is written."""
        self.draining = True
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._settings.drain_s
        while self._open:
            late = loop.time() >= until_s
            for session in [*self._open.values()]:
                if late or not session.dialogue.busy:
                    await self.end(session)
                    if session.connection is not None:
                        session.connection.leave(DRAINING, "the server ends")
            await asyncio.sleep(0.02)

    async def _drop_one_left(self) -> None:
        left = next((each for each in self._open.values() if each.leaving is not None), None)
        if left is not None and left.leaving is not None:
            left.leaving.cancel()
            await self.end(left)

    def _end_soon(self, session: Session) -> None:
        if session.leaving is not None:
            session.leaving.cancel()
        ending = asyncio.get_running_loop().create_task(self.end(session))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
