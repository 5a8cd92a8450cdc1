"""What goes wrong beside sessions: an engine that dies, clients that go, a full disk, a clock."""

import asyncio
import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.models import save_tiny
from tests.serve.conftest import KEY, SECRET, Running, break_step, break_thread, running
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from proactivellm.backbone.prompt import StreamSettings
from proactivellm.serve.logs import Formatter, Handler
from proactivellm.serve.models import Served
from proactivellm.serve.settings import Settings

CHURN_S = float(os.environ.get("PROACTIVELLM_CHURN_S", "2"))  # 60 before a release
CONNECTS_A_SECOND = 30
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


@pytest.mark.parametrize("harm", [break_step, break_thread])
@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_engine_is_told_over_http_and_logged(
    frail: Running,
    caplog: pytest.LogCaptureFixture,
    stream: bool,
    harm: Callable[[Served], None],
) -> None:
    harm(engine(frail))
    body = {"text": SECRET, "stream": stream}
    with caplog.at_level(logging.ERROR, "proactivellm.serve"):
        told = httpx.post(f"{frail.url}/v1/translations", json=body, timeout=30).text
    assert '"engine_failed"' in told and SECRET not in told
    assert "engine_failed" in [record.getMessage() for record in caplog.records]
    after = httpx.post(f"{frail.url}/v1/translations", json=body, timeout=30)  # on a new engine
    assert after.status_code == 200 and '"engine_failed"' not in after.text


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


def test_a_full_disk_under_the_log_disturbs_nothing(frail: Running, run: RunIt) -> None:
    logger = logging.getLogger("proactivellm.serve")

    async def talk() -> None:
        async with connect(frail.socket_url) as client:
            assert (await respond(client, SECRET))["status"] == "incomplete"

    with Path("/dev/full").open("w", buffering=1) as full:
        handler = Handler(full)
        logger.addHandler(handler)
        try:
            with pytest.raises(OSError, match="No space left"):
                full.write("a line\n")
            logger.error("a line")
            run(talk())
        finally:
            logger.removeHandler(handler)
            with suppress(OSError):
                full.close()


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


def test_clients_come_and_go_and_nothing_stays(frail: Running) -> None:
    """So many a second; some leave at once, some in the middle, some without a word."""

    async def one(number: int) -> None:
        try:
            async with connect(frail.socket_url, close_timeout=0.1) as client:
                await client.send(json.dumps({"type": "input_text_buffer.append", "text": SECRET}))
                if number % 3:
                    await until(client, "response.created")
                if number % 2:
                    client.transport.abort()
        except ConnectionClosed as closed:  # a machine that is too slow has a full house
            assert closed.rcvd is not None and closed.rcvd.code == 1013

    async def talk() -> None:
        began_s = time.monotonic()
        async with asyncio.timeout(CHURN_S + 30), asyncio.TaskGroup() as clients:
            for number in range(round(CHURN_S * CONNECTS_A_SECOND)):
                due_s = began_s + number / CONNECTS_A_SECOND
                await asyncio.sleep(due_s - time.monotonic())
                clients.create_task(one(number))
        async with asyncio.timeout(10):
            while len(frail.app.state.sessions) or engine(frail).active:
                await asyncio.sleep(0.01)
        assert engine(frail).waiting == 0
        assert engine(frail).engine.has_room

    asyncio.run(talk())


def test_a_peer_that_answers_no_ping_is_let_go(model: str, run: RunIt) -> None:
    """A half-open connection: its session waits for it for a while, then its lane is free."""
    ping_s, resume_s = 0.15, 0.3

    async def talk(server: Running) -> None:
        async with connect(server.socket_url, ping_interval=None, close_timeout=0.1) as client:
            await client.send(json.dumps({"type": "input_text_buffer.append", "text": SECRET}))
            await until(client, "response.output_text.delta")
            (session,) = server.app.state.sessions._open.values()
            client.transport.pause_reading()
            began_s = time.monotonic()
            while session.leaving is None:
                await asyncio.sleep(0.01)
            assert engine(server).active == 1
            while engine(server).active:
                await asyncio.sleep(0.01)
            # A ping, the time for its answer, the time to come back; the rest is for the machine.
            assert resume_s < time.monotonic() - began_s < 2 * ping_s + resume_s + 2
            client.transport.abort()

    settings = Settings(models=(model,), ping_s=ping_s, resume_s=resume_s, drain_s=0.0)
    with running(settings) as server:
        run(talk(server))


def test_what_is_answered_early_is_told_at_once(tmp_path: Path, run: RunIt) -> None:
    """A model whose target may end before its source does, and a response that is over then."""
    folder = save_tiny("qwen3", tmp_path)
    ends = {"max_new_tokens": 200, "eos_token_id": [*range(60)]}  # half of what it may write
    (folder / "generation_config.json").write_text(json.dumps(ends))
    StreamSettings(early_end=True).save(folder)

    async def talk(server: Running) -> None:
        async with connect(server.socket_url) as client:
            await client.send(json.dumps({"type": "input_text_buffer.append", "text": SECRET}))
            response = (await until(client, "response.done"))[-1]["response"]
            assert response["status"] == "completed"
            assert engine(server).active == 0
            await client.send(json.dumps({"type": "input_text_buffer.append", "text": " again"}))
            await client.send(json.dumps({"type": "input_text_buffer.commit"}))
            await client.send(json.dumps({"type": "input_text_buffer.clear"}))
            after = await until(client, "input_text_buffer.cleared")
            assert not any(event["type"] == "response.created" for event in after)

    with running(Settings(models=(str(folder),))) as server:
        run(talk(server))
