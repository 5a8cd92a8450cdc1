"""One connection to a server: text goes in piece by piece while its target comes out."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlsplit, urlunsplit

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
    elapsed_ms: float  # since the source began to arrive
    reason: str | None  # of the decision
    evidence: float | None  # what the policy looked at, such as the entropy in nats


class Client:
    """A session of `proactivellm serve`; a context manager. Its turns come one after the other.

    ```python
    async with Client("http://127.0.0.1:8000", policy="wait-k:3") as client:
        async for delta in client.stream(["Ich habe ", "einen Freund ", "getroffen."]):
            print(delta.text, end="", flush=True)
    ```

    Args:
        url: of the server, with http, https, ws or wss.
        model: None = the first that is served.
        policy: a policy spec; None = the default of the model.
        key: of the server, if it asks for one.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        model: str | None = None,
        policy: str | None = None,
        key: str | None = None,
    ) -> None:
        self.session: dict[str, Any] = {}  # what the server says of it
        self._address = _address(url, model)
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
            if self._policy is not None:
                chosen = {"type": "realtime", "proactivellm": {"policy": self._policy}}
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

    async def stream(self, source: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[Delta]:
        """One turn: sends the pieces of a source as they come, and tells what is written meanwhile.

        A piece may be cut anywhere; the source has ended when there is no further one. A source
        without text has no target. Left early, the turn is cancelled.

        Raises:
            ServerError: the server refuses it, or the connection is gone.
        """
        async with self._turn:
            sending = asyncio.create_task(self._send_all(source))
            response: str | None = None
            done = False
            try:
                while True:
                    event = await self._receive_while(sending)
                    if event is None:  # nothing was in the source
                        done = True
                        return
                    if event["type"] == "response.created":
                        response = event["response"]["id"]
                    elif event["type"] == "response.output_text.delta":
                        yield _delta(event)
                    elif event["type"] == "response.done":
                        done = True
                        _check(event["response"])
                        return
            finally:
                sending.cancel()
                if response is not None and not done:
                    await self._cancel(response)

    async def _send_all(self, source: Iterable[str] | AsyncIterable[str]) -> bool:
        """Whether there was anything to send."""
        sent = False
        async for piece in _pieces(source):
            if piece:
                await self._send({"type": "input_text_buffer.append", "text": piece})
                sent = True
        if sent:
            await self._send({"type": "input_text_buffer.commit"})
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

    async def _cancel(self, response: str) -> None:
        """End a response, and let its events go by."""
        try:
            await self._send({"type": "response.cancel", "response_id": response})
            await self._receive("response.done")
        except ServerError:  # it ended by itself meanwhile, or the connection did
            pass

    async def _send(self, event: dict[str, Any]) -> None:
        assert self._connection is not None, "use it as a context manager"
        try:
            await self._connection.send(json.dumps(event))
        except ConnectionClosed as closed:
            raise _gone(closed) from None

    async def _receive(self, kind: str | None = None) -> dict[str, Any]:
        """The next event, or the next one of a kind; ServerError for one that tells of an error."""
        assert self._connection is not None, "use it as a context manager"
        while True:
            try:
                event: dict[str, Any] = json.loads(await self._connection.recv())
            except ConnectionClosed as closed:
                raise _gone(closed) from None
            if event["type"] == "error":
                error = event["error"]
                more = error.get("proactivellm") or {}
                raise ServerError(error["message"], error["code"], more.get("retry_after_s"))
            if kind in (None, event["type"]):
                return event


def _address(url: str, model: str | None) -> str:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise ValueError(f"{url!r} is no address of a server: give one like http://127.0.0.1:8000")
    path = f"{parts.path.rstrip('/').removesuffix('/v1')}/v1/realtime"
    query = f"model={quote(model, safe='')}" if model else ""
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, query, ""))


async def _pieces(source: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    if isinstance(source, AsyncIterable):
        async for piece in source:
            yield piece
        return
    for piece in [source] if isinstance(source, str) else source:
        yield piece


def _delta(event: dict[str, Any]) -> Delta:
    where = event["proactivellm"]
    return Delta(
        event["delta"],
        where["source_units"],
        where["elapsed_ms"],
        where["reason"],
        where["evidence"],
    )


def _check(response: dict[str, Any]) -> None:
    """Refuses (ServerError) a response that failed."""
    if response["status"] == "failed":
        error = (response.get("status_details") or {}).get("error") or {}
        raise ServerError(error.get("message", "the response failed"), error.get("code"))


def _gone(closed: ConnectionClosed) -> ServerError:
    frame = closed.rcvd
    why = f"{frame.code} {frame.reason}".strip() if frame else "without a word"
    return ServerError(f"the server closed the connection: {why}")
