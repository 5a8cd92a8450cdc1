"""One source on its way through a model: what arrives waits here, bounded; what happens comes out.

Every protocol goes through it, be the source text or samples.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple

from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.serve.errors import RequestError
from proactivellm.serve.realtime.session_config import SessionConfig
from proactivellm.serve.settings import Settings
from proactivellm.session.events import Ending
from proactivellm.stream import Asking, AsyncStream, Hearing, StreamEvent, WallClock
from proactivellm.stream.source import Payload


class Tokens(NamedTuple):
    """Of a turn."""

    read: int = 0  # the prompt included
    written: int = 0
    thought: int = 0

    def cut(self, most: float) -> "Tokens":
        """The first of those that were written or thought."""
        thought = int(min(self.thought, most))
        return Tokens(self.read, int(min(self.written, most - thought)), thought)

    @property
    def usage(self) -> dict[str, Any]:
        """As OpenAI counts: thoughts are output."""
        output = self.written + self.thought
        usage: dict[str, Any] = {"input_tokens": self.read, "output_tokens": output}
        if self.thought:
            details = {"text_tokens": output, "reasoning_tokens": self.thought}
            usage["output_token_details"] = details
        return {**usage, "total_tokens": self.read + output}


class Turn:
    """A source of one session, from its first piece to the end of its target.

    Attributes:
        thinks: whether thoughts may come before the target.
        beside: whether it is written beside other turns of its session, and not after them.
        size: of all that was pushed, in characters, or seconds of what is heard.
        over: whether nothing more is read of it.
        ending: how it ended, once it has; None if it could not go on.
    """

    def __init__(
        self,
        config: SessionConfig,
        settings: Settings,
        hearing: Hearing | None = None,
    ) -> None:
        self.size = 0.0
        self.over = False
        self.ending: Ending | None = None
        self.thinks = config.served.deepest > 0
        self.beside = False
        self._served, self._settings = config.served, settings
        self._config, self._hearing = config, hearing
        self._clock = WallClock()  # from its first piece on
        heard, s = hearing is not None, settings
        self._unit = "seconds" if heard else "characters"
        self._most = s.turn_s if heard else s.turn_chars
        self._most_waiting = s.waiting_s if heard else s.waiting_chars
        # With size, and when it came.
        self._waiting: deque[tuple[Payload, float, float]] = deque()
        self._waiting_size, self._num_taken = 0.0, 0
        self._news, self._taken = asyncio.Event(), asyncio.Event()
        self._closed = self._cancelled = False
        self._has_text = False
        self._patience: asyncio.Timeout | None = None
        self._stream: AsyncStream | None = None

    @property
    def tokens(self) -> Tokens:
        """Those so far."""
        if self._stream is None:
            return Tokens()
        state = self._stream.stream.state
        return Tokens(state.source_tokens, state.num_written, len(state.thought_delays))

    @property
    def forwards(self) -> int:
        """Forwards of the model that it took part in."""
        return 0 if self._stream is None else self._stream.stream.state.forwards

    def push(self, payload: Payload, size: float) -> None:
        """Take what arrived next; `size` as it counts for the limits.

        RequestError as `push_all`.
        """
        self.push_all([payload], size)

    def push_all(self, payloads: Sequence[Payload], size: float) -> None:
        """Take what arrived next, in pieces, of which all or none are taken.

        RequestError if more of it waits, or has arrived, than the settings allow: it is not taken.
        """
        if self.size + size > self._most:
            raise RequestError(
                f"a source may have {self._most:g} {self._unit}: commit this one and begin another",
                code="input_too_long",
            )
        if self.over:  # the target ended before its source
            self.size += size
            return
        if self._waiting and self._waiting_size + size > self._most_waiting:
            raise RequestError(
                f"{self._waiting_size:g} {self._unit} wait to be read already; send this again "
                "later",
                code="input_buffer_full",
                type="rate_limit_exceeded",
                retry_after_s=1.0,
            )
        self.size += size
        self._waiting_size += size
        now_s, each = self._clock.now_s, size / len(payloads)
        self._waiting += [(payload, each, now_s) for payload in payloads]
        self._news.set()

    async def room(self) -> None:
        """Until what waits is no more than half of what may."""
        while not self.over and self._waiting_size > self._most_waiting / 2:
            self._taken.clear()
            await self._taken.wait()

    async def stream(self) -> AsyncStream | None:
        """Its stream, once that was given all that has arrived by now; None if it has none."""
        arrived = self._num_taken + len(self._waiting)
        while not self.over and self._num_taken < arrived:
            self._taken.clear()
            await self._taken.wait()
        return self._stream

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

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
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
            async with await self._open() as stream:
                if self.thinks and self._hearing is None:
                    await stream.ask(self._config.question or "", self._config.depth)
                self._stream = stream  # from here on, `cancel` ends it
                if self._cancelled:
                    await stream.cancel()
                feeding = asyncio.create_task(self._feed(stream))
                try:
                    async for event in stream:
                        if event.kind == "END":
                            self.ending = event.ending
                        self._note(event)
                        yield event
                except ValueError as error:
                    raise RequestError(str(error), code="cannot_stream") from None
                finally:
                    feeding.cancel()
                nothing = Ending.CANCELLED if self._cancelled else Ending.EMPTY_SOURCE
                self.ending = self.ending or nothing
        finally:
            self.over = True
            self._taken.set()
            self._served.give_back()
            self._served.metrics.turn(self._served.name, self.ending, self.tokens.thought)

    def _note(self, event: StreamEvent) -> None:
        name, metrics = self._served.name, self._served.metrics
        metrics.event(name, event)
        if event.kind == "WRITE" and not self._has_text:
            self._has_text = True
            metrics.first_text(name, event.elapsed_s)

    async def _open(self) -> AsyncStream:
        policy = self._config.policy
        return await self._served.open(
            policy=policy,
            hearing=self._hearing,
            clock=self._clock,
            watch=policy.evidence if isinstance(policy, ThresholdPolicy) else (),
            ends_early=self._hearing is None or self._served.watches,
        )

    async def _lane(self) -> bool:
        """Whether there is one; not if it was cancelled before."""

        def keep(timeout: asyncio.Timeout) -> None:
            self._patience = timeout

        if self._cancelled:
            return False
        try:
            await self._served.lane(keep)
            self._served.metrics.waited(self._served.name, self._clock.now_s)
        except TimeoutError:
            return False
        finally:
            self._patience = None
        return True

    async def _feed(self, stream: AsyncStream) -> None:
        while True:
            self._news.clear()
            while self._waiting:
                payload, size, now_s = self._waiting[0]
                try:
                    await stream.push(payload, now_s)
                except (ValueError, RuntimeError):  # it has ended; its events tell why
                    return
                self._waiting.popleft()
                self._num_taken += 1
                self._waiting_size = self._waiting_size - size if self._waiting else 0.0
                self._taken.set()
            if self._closed:
                await stream.close()
                return
            await self._news.wait()


class Branch(Turn):
    """What is asked about all that another turn has read so far, which goes on."""

    def __init__(self, config: SessionConfig, settings: Settings, of: Turn, question: str) -> None:
        super().__init__(config, settings)
        self.beside = True
        self._of, self._asking = of, Asking(question)
        self.close()

    async def _open(self) -> AsyncStream:
        if (watched := await self._of.stream()) is None:
            raise RequestError("nothing was read yet that could be asked about", code="no_input")
        try:
            return await watched.branch(self._asking)
        except (ValueError, RuntimeError) as error:
            raise RequestError(str(error), code="cannot_stream") from None
