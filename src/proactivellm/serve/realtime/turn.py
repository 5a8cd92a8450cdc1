"""One source on its way through a model: what arrives waits here, bounded; what happens comes out.

Every protocol goes through it, be the source text or samples.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from proactivellm.policy.base import Policy
from proactivellm.serve.errors import RequestError
from proactivellm.serve.models import Served
from proactivellm.serve.settings import Settings
from proactivellm.session.events import Ending
from proactivellm.stream import AsyncStream, Hearing, StreamEvent
from proactivellm.stream.source import Payload


class Turn:
    """A source of one session, from its first piece to the end of its target.

    Attributes:
        size: of all that was pushed, in characters or samples.
        over: whether nothing more is read of it.
        ending: how it ended, once it has; None if it could not go on.
    """

    def __init__(
        self,
        served: Served,
        settings: Settings,
        policy: Policy | None = None,
        hearing: Hearing | None = None,
        watched: bool = False,
    ) -> None:
        """Of a turn that is watched, events tell what the policy compared with its threshold."""
        self.size = 0
        self.over = False
        self.ending: Ending | None = None
        self._served, self._settings = served, settings
        self._options: dict[str, Any] = {
            "policy": policy,
            "hearing": hearing,
            "ends_early": hearing is None,
        }
        if watched:
            self._options["watch"] = (policy or served.policy).evidence
        self._waiting: deque[tuple[Payload, int]] = deque()
        self._waiting_size = 0
        self._news = asyncio.Event()
        self._closed = self._cancelled = False
        self._patience: asyncio.Timeout | None = None
        self._stream: AsyncStream | None = None

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens read, the prompt included, and written."""
        if self._stream is None:
            return 0, 0
        state = self._stream.stream.state
        return state.source_tokens, state.num_written

    @property
    def forwards(self) -> int:
        """Forwards of the model that it took part in."""
        return 0 if self._stream is None else self._stream.stream.state.forwards

    def push(self, payload: Payload, size: int) -> None:
        """Take what arrived next; `size` as it counts for the limits.

        RequestError if more of it waits, or has arrived, than the settings allow: it is not taken.
        """
        if self.size + size > self._settings.turn_chars:
            raise RequestError(
                f"a source may have {self._settings.turn_chars} characters: commit this one and "
                "begin another",
                code="input_too_long",
            )
        if self.over:  # the target ended before its source
            self.size += size
            return
        if self._waiting and self._waiting_size + size > self._settings.waiting_chars:
            raise RequestError(
                f"{self._waiting_size} characters wait to be read already; send this again later",
                code="input_buffer_full",
                type="rate_limit_exceeded",
                retry_after_s=1.0,
            )
        self.size += size
        self._waiting_size += size
        self._waiting.append((payload, size))
        self._news.set()

    def close(self) -> None:
        """Say that nothing more arrives; idempotent."""
        self._closed = True
        self._news.set()

    async def cancel(self) -> None:
        """End it after its last written token, or before it has begun; idempotent."""
        self._cancelled = True
        if self._stream is not None:
            await self._stream.cancel()
        elif self._patience is not None:
            self._patience.reschedule(0)

    async def events(self) -> AsyncIterator[StreamEvent]:
        """What happens, from when a lane is free to the end; once.

        Raises:
            RequestError: if no lane becomes free in time, or the source cannot be streamed.
            Exception: what broke the engine.
        """
        try:
            if not await self._lane():
                self.ending = Ending.CANCELLED
                return
        except RequestError:
            self.over = True
            raise
        try:
            async with await self._served.open(**self._options) as stream:
                self._stream = stream
                if self._cancelled:
                    await stream.cancel()
                feeding = asyncio.create_task(self._feed(stream))
                try:
                    async for event in stream:
                        if event.kind == "END":
                            self.ending = event.ending
                        yield event
                except ValueError as error:
                    raise RequestError(str(error), code="cannot_stream") from None
                finally:
                    feeding.cancel()
                self.ending = self.ending or Ending.EMPTY_SOURCE
        finally:
            self.over = True
            self._served.give_back()

    async def _lane(self) -> bool:
        """Whether there is one; not if it was cancelled before."""

        def keep(timeout: asyncio.Timeout) -> None:
            self._patience = timeout

        if self._cancelled:
            return False
        try:
            await self._served.lane(keep)
        except TimeoutError:
            return False
        finally:
            self._patience = None
        return True

    async def _feed(self, stream: AsyncStream) -> None:
        while True:
            self._news.clear()
            while self._waiting:
                payload, size = self._waiting.popleft()
                try:
                    await stream.push(payload)
                except (ValueError, RuntimeError):  # it has ended; its events tell why
                    return
                self._waiting_size -= size
            if self._closed:
                await stream.close()
                return
            await self._news.wait()
