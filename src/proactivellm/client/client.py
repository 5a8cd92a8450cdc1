"""A client that sends text."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

from proactivellm.client.session import Delta, ServerError, Session, refuse


class Client(Session):
    """A session of `proactivellm serve` that reads text; a context manager.

    Its turns come one after the other.

    Args:
        question: that a model which thinks reads before each source; None = none.
        depth: of its thoughts, see docs/guide/thinking.md; None = as it decides.
        more: as of `Session`.

    ```python
    async with Client("http://127.0.0.1:8000", policy="wait-k:3") as client:
        async for delta in client.stream(["Ich habe ", "einen Freund ", "getroffen."]):
            print(delta.text, end="", flush=True)
    ```
    """

    _begins, _writes = "response.created", "response.output_text.delta"
    _thinks = ("response.reasoning_text.delta", "response.reasoning_text.done")
    _ends = ("response.done",)

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        question: str | None = None,
        depth: int | None = None,
        **more: Any,
    ) -> None:
        super().__init__(url, **more)
        self._asked = {"question": question, "depth": depth}

    def stream(
        self, source: Iterable[str] | AsyncIterable[str], thoughts: bool = False
    ) -> AsyncIterator[Delta]:
        """One turn: sends the pieces of a source as they come, and tells what is written meanwhile.

        A piece may be cut anywhere; the source has ended when there is no further one. A source
        without text has no target. Left early, the turn is cancelled.

        Args:
            thoughts: whether deltas of thoughts are told as well, see `Delta.thought`.

        Raises:
            ServerError: the server refuses it, or the connection is gone.
        """
        return self._stream(source, thoughts)

    def _chosen(self) -> dict[str, Any]:
        asked = {"policy": self._policy, **self._asked}
        chosen = {name: value for name, value in asked.items() if value is not None}
        return {"type": "realtime", "proactivellm": chosen} if chosen else {}

    async def _append(self, piece: Any) -> None:
        await self._send({"type": "input_text_buffer.append", "text": piece})

    async def _commit(self) -> None:
        await self._send({"type": "input_text_buffer.commit"})

    def _check(self, last: dict[str, Any]) -> None:
        response = last["response"]
        if response["status"] == "failed":
            refuse((response.get("status_details") or {}).get("error") or {})

    async def _leave(self, begun: dict[str, Any] | None) -> None:
        if begun is None:
            return
        with suppress(ServerError):  # it ended by itself meanwhile, or the connection did
            await self._send({"type": "response.cancel", "response_id": begun["response"]["id"]})
            await self._receive("response.done")
