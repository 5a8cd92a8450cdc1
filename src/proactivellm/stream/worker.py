"""Streams driven from coroutines: an engine in a thread of its own, off the event loop.

The thread alone touches the engine: what coroutines ask for is done between two steps, and what
happens in a stream is sent to the event loop that opened it.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from proactivellm.output.log import Instance
from proactivellm.stream.event import StreamEvent
from proactivellm.stream.fork import branch, has_heard_all
from proactivellm.stream.job import Job
from proactivellm.stream.media import Asking
from proactivellm.stream.source import Payload, Stream
from proactivellm.stream.streams import Streams

_CLOSED = "the worker is closed"


@dataclass(frozen=True)
class _Call:
    """What the thread is asked to do once `when` holds."""

    work: Callable[[], Any]
    when: Callable[[], bool]
    done: Future[Any] = field(default_factory=Future)

    def attempt(self) -> bool:
        """Does it, if it is time; whether nothing is left to do."""
        if not self.done.cancelled() and not self.when():
            return False
        if self.done.set_running_or_notify_cancel():
            try:
                self.done.set_result(self.work())
            except Exception as error:
                self.done.set_exception(error)
        return True


class Worker:
    """A thread that steps an engine while there is something to do, and sleeps otherwise.

    The streams are used by nobody else from here on. What a step raises ends the streams that are
    open. What goes wrong beside a step ends the worker too: whoever waits for it is told.

    Attributes:
        error: what ended the worker, if something did.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._served: list[AsyncStream] = []
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # no call comes after the None that ends the thread
        self._closed = False
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)
        self._thread.start()

    async def open(self, **options: Any) -> "AsyncStream":
        """Begin a source, with the options of `Streams.open`.

        Raises:
            EngineFull: if as many are open as the limits allow.
            RuntimeError: if the worker is closed.
        """
        loop, opened = asyncio.get_running_loop(), list[AsyncStream]()

        def begin() -> AsyncStream:
            self._tell_all()  # those whose event loop is closed make room
            opened.append(self.serve(self._streams.open(**options), loop))
            return opened[0]

        def drop() -> None:
            for each in opened:
                each.stream.cancel()

        try:
            return await self.ask(begin)
        except asyncio.CancelledError:  # nobody has the stream
            with suppress(RuntimeError):
                self._put(drop)
            raise

    def serve(self, stream: Stream, loop: asyncio.AbstractEventLoop) -> "AsyncStream":
        """Tell a loop of what happens in a stream of these; in the thread."""
        served = AsyncStream(self, stream, loop)
        self._served.append(served)
        return served

    async def ask(self, work: Callable[[], Any], when: Callable[[], bool] = lambda: True) -> Any:
        """Do something in the thread, between two steps, as soon as `when` holds there.

        RuntimeError if the worker is closed, else what the work raises.
        """
        return await asyncio.wrap_future(self._put(work, when))

    async def close(self) -> None:
        """Cancel the streams that have not ended, and end the thread; idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _put(self, work: Callable[[], Any], when: Callable[[], bool] = lambda: True) -> Future[Any]:
        call = _Call(work, when)
        with self._lock:
            if self._closed:
                raise RuntimeError(_CLOSED) from self.error
            self._calls.put(call)
        return call.done

    def _run(self) -> None:
        calls: list[_Call] = []
        try:
            self._serve(calls)
        except Exception as error:
            with self._lock:
                self._closed, self.error = True, error
            for served in self._served:
                served.lose(error)
            calls += [call for call in self._asked(wait=False) if call is not None]
        for call in calls:
            if not call.done.done() and call.done.set_running_or_notify_cancel():
                call.done.set_exception(RuntimeError(_CLOSED))

    def _serve(self, calls: list[_Call]) -> None:
        """Until it is told to end; `calls` are then those that nobody answered."""
        idle = True
        while True:
            for call in self._asked(wait=idle):
                if call is None:
                    self._end_all(None)
                    return
                calls.append(call)
            calls[:] = [call for call in calls if not call.attempt()]
            try:
                idle = self._streams.step() is None
            except Exception as error:  # it is the fault of no one stream: memory ran out
                self._end_all(error)
            self._tell_all()

    def _asked(self, wait: bool) -> list[_Call | None]:
        asked = [self._calls.get()] if wait else []
        while not self._calls.empty():
            asked.append(self._calls.get())
        return asked

    def _tell_all(self) -> None:
        self._served = [served for served in self._served if served.tell()]

    def _end_all(self, error: Exception | None) -> None:
        for served in self._served:
            served.stream.cancel()
            served.tell(error)
        self._served = []


class AsyncStream:
    """One source, pushed by coroutines of one event loop; `Worker.open` makes it.

    Iterate over it for its events. As a context, it is cancelled if it is left before its end.

    Attributes:
        stream: what the thread of the worker drives; to be looked at once it has ended.
    """

    def __init__(self, worker: Worker, stream: Stream, loop: asyncio.AbstractEventLoop) -> None:
        self.stream = stream
        self._worker, self._loop = worker, loop
        self._news: asyncio.Queue[StreamEvent | Exception | None] = asyncio.Queue()

    async def push(self, payload: Payload, now_s: float | None = None) -> None:
        """Push as `Stream.push`, when the queue of the stream has room."""
        await self._worker.ask(
            lambda: self.stream.push(payload, now_s), when=lambda: self.stream.has_room
        )

    async def ask(self, question: str, depth: int | None = None) -> None:
        """As `Stream.ask`."""
        await self._worker.ask(lambda: self.stream.ask(question, depth))

    async def branch(self, asking: Asking) -> "AsyncStream":
        """A stream that is asked about all that this one has been given.

        Raises as `fork.branch`, and RuntimeError if the worker is closed.
        """
        loop, stream = asyncio.get_running_loop(), self.stream

        def begin() -> AsyncStream:
            return self._worker.serve(branch(stream, asking), loop)

        return await self._worker.ask(begin, lambda: has_heard_all(stream))

    async def close(self, now_s: float | None = None) -> None:
        """Say that nothing more arrives; idempotent."""
        await self._worker.ask(lambda: self.stream.close(now_s))

    async def cancel(self) -> None:
        """End it after its last written token; idempotent."""
        await self._worker.ask(self.stream.cancel)

    def instance(self, job: Job | None = None) -> Instance:
        """The log entry, once the stream has ended (see `Stream.instance`)."""
        return self.stream.instance(job)

    async def __aiter__(self) -> AsyncIterator[StreamEvent]:
        """What happens, as it happens, until the stream has ended; for one reader.

        Raises:
            ValueError: if the stream could not go on.
            Exception: what a step raised that no stream survived.
        """
        while isinstance(news := await self._news.get(), StreamEvent):
            yield news
        self._news.put_nowait(news)  # for whoever asks again
        if news is not None:
            raise news

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.stream.ended:
            await self.cancel()

    def tell(self, error: Exception | None = None) -> bool:
        """Send what has happened to the event loop; whether more may follow. For the worker."""
        news: list[StreamEvent | Exception | None] = [*self.stream.take()]
        if self.stream.ended:
            news.append(ValueError(self.stream.error) if self.stream.error else error)
        for each in news:
            self._send(each)
        if self._loop.is_closed():  # nobody listens any more
            self.stream.cancel()
        return not self.stream.ended

    def lose(self, error: Exception) -> None:
        """Say that nothing follows, as the worker is gone. For the worker."""
        self._send(error)

    def _send(self, news: StreamEvent | Exception | None) -> None:
        with suppress(RuntimeError):  # the loop is closed just now
            self._loop.call_soon_threadsafe(self._news.put_nowait, news)
