"""One session of a server: sources go in piece by piece while their targets come out."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any, NamedTuple, NoReturn, Self
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


class ServerError(ValueError):
    """What the server refused, or why the connection is gone.

    Attributes:
        code: the server's name for it, such as "too_many_sessions"; None if there is none.
        retry_after_s: when to try again, if the server says so.
    """

    def __init__(
        self, message: str, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


class Delta(NamedTuple):
    """Text that was written, never to be taken back."""

    text: str
    source_units: int  # read when it was decided to write
    source_s: float | None  # of the recording, read when it was decided to write; None of text
    elapsed_ms: float  # since the source began to arrive
    reason: str | None  # of the decision
    evidence: float | None  # what the policy looked at, such as the entropy in nats
    thought: int | None = None  # that it is part of, from 0 on; None: of the target
    closes: bool = False  # whether the thought ends with it


class Session(ABC):
    """A connection; a context manager. Its turns come one after the other.

    Args:
        url: of the server, with http, https, ws or wss.
        model: None = the first that is served.
        policy: a policy spec; None = the default of the model.
        key: of the server, if it asks for one.
    """

    # Query of the address; events that begin a turn, have its text or its thoughts, and end it.
    _query: Mapping[str, str] = {}
    _begins: str
    _writes: str
    _thinks: tuple[str, ...] = ()
    _ends: tuple[str, ...]

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        model: str | None = None,
        policy: str | None = None,
        key: str | None = None,
    ) -> None:
        self.session: dict[str, Any] = {}  # what the server says of it
        self._address = _address(url, {**self._query, **({"model": model} if model else {})})
        self._policy, self._key = policy, key
        self._connection: ClientConnection | None = None
        # A loop that is left by `break` closes its turn only a little later, beside the next one.
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Connects, and sets the policy; ServerError if the server is not there or refuses."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            self._connection = await connect(self._address, additional_headers=headers)
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise ServerError(f"cannot connect to {self._address}: {error}") from None
        try:
            self.session = (await self._receive("session.created"))["session"]
            if chosen := self._chosen():
                await self._send({"type": "session.update", "session": chosen})
                self.session = (await self._receive("session.updated"))["session"]
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the connection; what is being written ends."""
        if self._connection is not None:
            await self._connection.close()

    async def _stream(
        self, source: Iterable[Any] | AsyncIterable[Any], thoughts: bool = False
    ) -> AsyncIterator[Delta]:
        told = (self._writes, *(self._thinks if thoughts else ()))
        async with self._turn:
            sending = asyncio.create_task(self._send_all(source))
            begun: dict[str, Any] | None = None
            done = False
            try:
                while True:
                    event = await self._receive_while(sending)
                    if event is None:  # nothing was in the source
                        done = True
                        return
                    if event["type"] == self._begins:
                        begun = event
                    elif event["type"] in told and "proactivellm" in event:
                        yield self._delta(event)
                    elif event["type"] in self._ends:
                        done = True
                        self._check(event)
                        return
            finally:
                sending.cancel()
                if not done:
                    await self._leave(begun)

    @abstractmethod
    def _chosen(self) -> dict[str, Any]:
        """What the session is set to, where that is not the default."""

    @abstractmethod
    async def _append(self, piece: Any) -> None:
        """Send a piece of the source."""

    @abstractmethod
    async def _commit(self) -> None:
        """Say that nothing more comes."""

    @abstractmethod
    def _check(self, last: dict[str, Any]) -> None:
        """Refuses (ServerError) a turn that failed, by its last event."""

    @abstractmethod
    async def _leave(self, begun: dict[str, Any] | None) -> None:
        """End a turn that is left, begun with that event, and let its events go by."""

    def _delta(self, event: dict[str, Any]) -> Delta:
        where, of_thought = event["proactivellm"], event["type"] in self._thinks
        return Delta(
            event.get("delta", ""),  # the end of a thought has none
            where["source_units"],
            where["source_s"],
            where["elapsed_ms"],
            where["reason"],
            where["evidence"],
            thought=event["content_index"] if of_thought else None,
            closes=of_thought and "delta" not in event,
        )

    async def _send_all(self, source: Iterable[Any] | AsyncIterable[Any]) -> bool:
        """Whether there was anything to send."""
        sent = False
        async for piece in _pieces(source):
            if piece:
                await self._append(piece)
                sent = True
        if sent:
            await self._commit()
        return sent

    async def _receive_while(self, sending: "asyncio.Task[bool]") -> dict[str, Any] | None:
        """The next event; None if all is sent, and it was nothing. Raises what broke the source."""
        if not sending.done():
            receiving = asyncio.ensure_future(self._receive())
            try:
                await asyncio.wait({receiving, sending}, return_when=asyncio.FIRST_COMPLETED)
                if receiving.done():
                    return receiving.result()
                if not sending.result():
                    return None
                return await receiving
            finally:
                receiving.cancel()
        return await self._receive() if sending.result() else None

    async def _send(self, event: dict[str, Any]) -> None:
        assert self._connection is not None, "use it as a context manager"
        try:
            await self._connection.send(json.dumps(event))
        except ConnectionClosed as closed:
            raise _gone(closed) from None

    async def _receive(self, *kinds: str) -> dict[str, Any]:
        """The next event, or the next of these kinds; ServerError for one that is an error."""
        assert self._connection is not None, "use it as a context manager"
        while True:
            try:
                event: dict[str, Any] = json.loads(await self._connection.recv())
            except ConnectionClosed as closed:
                raise _gone(closed) from None
            if event["type"] == "error":
                refuse(event["error"])
            if not kinds or event["type"] in kinds:
                return event


def _address(url: str, asked: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise ValueError(f"{url!r} is no address of a server: give one like http://127.0.0.1:8000")
    path = f"{parts.path.rstrip('/').removesuffix('/v1')}/v1/realtime"
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, urlencode(asked), ""))


async def _pieces(source: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(source, AsyncIterable):
        async for piece in source:
            yield piece
        return
    for piece in [source] if isinstance(source, str) else source:
        yield piece


def refuse(error: Mapping[str, Any]) -> NoReturn:
    """Raises the ServerError that an object `error` tells of."""
    more = error.get("proactivellm") or {}
    message = error.get("message", "the turn failed")
    raise ServerError(message, error.get("code"), more.get("retry_after_s"))


def _gone(closed: ConnectionClosed) -> ServerError:
    frame = closed.rcvd
    why = f"{frame.code} {frame.reason}".strip() if frame else "without a word"
    return ServerError(f"the server closed the connection: {why}")
