"""What goes wrong beside sessions: events of any shape, an engine that dies, clients that go."""

import asyncio
import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.serve.conftest import KEY, Running, running
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from proactivellm.serve.logs import Formatter, Handler
from proactivellm.serve.models import Served
from proactivellm.serve.settings import Settings

SECRET = "a man in a hat looks at the window"
FUZZ_CASES = int(os.environ.get("PROACTIVELLM_FUZZ_CASES", "80"))  # 10000 before a release
RunIt = Callable[..., Any]


@pytest.fixture(scope="module")
def frail(model: str) -> Iterator[Running]:
    """A server whose engine is broken by the tests."""
    limits: dict[str, Any] = {"streams": 2, "resume_s": 0.0, "events_per_s": 10**6}
    with running(Settings(models=(model,), **limits)) as it:
        yield it


def engine(server: Running) -> Served:
    (served,) = server.app.state.models
    return served


async def until(client: Any, kind: str) -> list[dict[str, Any]]:
    events = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(await client.recv()))
    return events


async def respond(client: Any, text: str) -> dict[str, Any]:
    """The response of a text that streams."""
    await client.send(json.dumps({"type": "input_text_buffer.append", "text": text}))
    await client.send(json.dumps({"type": "input_text_buffer.commit"}))
    return dict((await until(client, "response.done"))[-1]["response"])


def break_step(served: Served) -> None:
    """The next step raises, as if memory ran out."""
    step, streams = served._worker._streams.step, served._worker._streams

    def broken() -> Any:
        streams.step = step  # type: ignore[method-assign]
        raise MemoryError(SECRET)

    streams.step = broken  # type: ignore[method-assign]


def break_thread(served: Served) -> None:
    """The thread dies, once somebody is served."""
    worker = served._worker

    def broken() -> None:
        if worker._served:  # otherwise it may die before the next turn, which notices nothing
            raise RuntimeError(SECRET)

    worker._tell_all = broken  # type: ignore[method-assign]


@pytest.mark.parametrize("harm", [break_step, break_thread])
def test_a_broken_engine_is_told_and_the_server_goes_on(
    frail: Running, run: RunIt, harm: Callable[[Served], None]
) -> None:
    async def talk() -> None:
        async with connect(frail.socket_url) as client:
            before = await respond(client, SECRET)
            harm(engine(frail))
            response = await respond(client, SECRET)
            assert response["status"] == "failed"
            error = response["status_details"]["error"]
            assert (error["type"], error["code"]) == ("server_error", "engine_failed")
            after = await respond(client, SECRET)
            assert after["output"][0]["content"] == before["output"][0]["content"]
        assert engine(frail).active == 0

    run(talk())


def test_the_log_says_nothing_of_what_is_said(frail: Running, run: RunIt) -> None:
    lines = io.StringIO()
    handler = Handler(lines)
    handler.setFormatter(Formatter(as_json=True))
    logger = logging.getLogger("proactivellm.serve")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    async def talk() -> None:
        async with connect(frail.socket_url) as client:
            session = (await until(client, "session.created"))[-1]["session"]["id"]
            await respond(client, SECRET)
            break_thread(engine(frail))
            await respond(client, SECRET)
            await respond(client, SECRET)
        while len(frail.app.state.sessions):
            await asyncio.sleep(0.01)
        assert session not in lines.getvalue()

    try:
        run(talk())
    finally:
        logger.removeHandler(handler)
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    events = ["session_opened", "response_done", "engine_failed", "engine_restarted"]
    assert {*events, "session_ended"} == {line["event"] for line in told}
    assert not any(word in lines.getvalue() for word in ("hat", "window", KEY))


@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_engine_is_told_over_http_and_logged(
    frail: Running, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    break_step(engine(frail))
    body = {"text": SECRET, "stream": stream}
    with caplog.at_level(logging.ERROR, "proactivellm.serve"):
        told = httpx.post(f"{frail.url}/v1/translations", json=body, timeout=30).text
    assert '"engine_failed"' in told and SECRET not in told
    assert "engine_failed" in [record.getMessage() for record in caplog.records]


def test_a_jump_of_the_clock_ends_nothing(
    frail: Running, run: RunIt, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk() -> None:
        async with connect(frail.socket_url) as client:
            before = await respond(client, SECRET)
            for jump in (-1e6, 1e6):
                now = time.time() + jump
                with monkeypatch.context() as clock:
                    clock.setattr(time, "time", lambda now=now: now)
                    after = await respond(client, SECRET)
                assert after["output"][0]["content"] == before["output"][0]["content"]

    run(talk())


def test_a_full_disk_under_the_log_disturbs_nothing() -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    handler = Handler(Full())
    handler.emit(logging.LogRecord("proactivellm.serve", logging.INFO, "", 0, "x", (), None))


def test_a_client_of_http_that_goes_frees_its_lane(frail: Running, run: RunIt) -> None:
    async def talk() -> None:
        served = engine(frail)
        body = {"text": " ".join([SECRET] * 100), "policy": "wait-k:700"}
        async with httpx.AsyncClient(base_url=frail.url, timeout=0.1) as client:
            for stream in (False, True):
                with pytest.raises(httpx.TimeoutException):
                    await client.post("/v1/translations", json={**body, "stream": stream})
        while served.active:
            await asyncio.sleep(0.01)
        assert served.waiting == 0

    run(talk())


def test_text_that_is_no_unicode_closes_its_connection_alone(frail: Running, run: RunIt) -> None:
    async def talk() -> None:
        async with connect(frail.socket_url) as good, connect(frail.socket_url) as bad:
            await bad.send(b"\xff\xfe{", text=True)
            with pytest.raises(ConnectionClosed) as closed:
                await until(bad, "error")
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1007
            assert (await respond(good, SECRET))["status"] == "incomplete"

    run(talk())


def test_clients_come_and_go_and_nothing_stays(frail: Running, run: RunIt) -> None:
    async def one(number: int) -> None:
        async with connect(frail.socket_url, close_timeout=0.1) as client:
            await client.send(json.dumps({"type": "input_text_buffer.append", "text": SECRET}))
            if number % 3:
                await until(client, "response.created")
            if number % 2:
                client.transport.abort()

    async def talk() -> None:
        for _ in range(3):
            await asyncio.gather(*map(one, range(10)))
        while len(frail.app.state.sessions) or engine(frail).active:
            await asyncio.sleep(0.01)
        assert engine(frail).waiting == 0
        assert engine(frail).engine.has_room

    run(talk())


_TYPES = ["session.update", "conversation.item.create", "conversation.item.retrieve"]
_TYPES += ["conversation.item.delete", "response.create", "response.cancel"]
_TYPES += [f"input_text_buffer.{name}" for name in ("append", "commit", "clear")]
_KEYS = ["session", "item", "item_id", "response", "response_id", "text", "event_id", "type"]
_KEYS += ["id", "role", "content", "model", "input", "metadata", "proactivellm", "policy", "delay"]
_KEYS += ["previous_item_id", "conversation", "max_output_tokens", "output_modalities"]
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_LEAVES |= st.sampled_from(["user", "message", "input_text", "wait-k:2", "none", "root", "text"])
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
_EVENTS = st.builds(
    lambda kind, more: json.dumps({**more, "type": kind}),
    st.sampled_from(_TYPES) | _LEAVES,
    st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=4),
)
_MESSAGES = _EVENTS | st.text(max_size=40) | st.binary(max_size=20) | st.just("[" * 5000)


def drawn() -> list[str | bytes]:
    """Messages, all before the first is sent: the threads of a server draw random numbers too."""
    messages: list[str | bytes] = []

    @hypothesis_settings(max_examples=FUZZ_CASES, deadline=None, database=None, derandomize=True)
    @given(_MESSAGES)
    def draw(message: str | bytes) -> None:
        messages.append(message)

    draw()
    return messages


def test_no_message_brings_it_down(frail: Running) -> None:
    messages = drawn()

    async def talk() -> None:
        async with connect(frail.socket_url, max_queue=None) as client:
            for number, message in enumerate(messages):
                with suppress(UnicodeEncodeError):  # half a surrogate pair does not leave here
                    await client.send(message)
                await client.send(json.dumps({"type": "probe", "event_id": f"probe {number}"}))
                while True:
                    event = json.loads(await asyncio.wait_for(client.recv(), 30))
                    error = event.get("error", {})
                    assert error.get("type") != "server_error", (message, event)
                    assert event.get("response", {}).get("status") != "failed", (message, event)
                    if error.get("event_id") == f"probe {number}":
                        break

    asyncio.run(talk())
