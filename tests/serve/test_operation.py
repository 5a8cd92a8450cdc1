"""Who may connect, how many, how long; what becomes of clients that are slow, gone or back."""

import asyncio
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.serve.conftest import KEY, Running, running
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from proactivellm.serve.app import create_app
from proactivellm.serve.settings import Settings

SOURCE = "a man in a hat looks at the window and sleeps"
APPEND = {"type": "input_text_buffer.append", "text": SOURCE[:30]}
TLS = Path(__file__).parents[1] / "data" / "tls"  # for tests alone: localhost, self-signed
RunIt = Callable[..., Any]


@pytest.fixture(scope="module")
def open_server(model: str) -> Iterator[Running]:
    """Without a key, with tight limits."""
    limits: dict[str, Any] = {"sessions": 2, "streams": 1, "queue_s": 0.2, "turn_chars": 2000}
    limits |= {"waiting_chars": 500, "replay_events": 40, "unsent_events": 8, "message_bytes": 5000}
    with running(Settings(models=(model,), resume_s=20.0, drain_s=0.0, **limits)) as it:
        yield it


async def send(client: ClientConnection, event: dict[str, Any]) -> None:
    await client.send(json.dumps(event))


async def until(client: ClientConnection, kind: str) -> list[dict[str, Any]]:
    events = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(await client.recv()))
    return events


async def free(server: Running, sessions: int = 0) -> None:
    """Waits until lanes and sessions are given back."""
    (served,) = server.app.state.models
    while served.active or len(server.app.state.sessions) > sessions:
        await asyncio.sleep(0.01)


def test_every_route_but_one_wants_the_key(server: Running, run: RunIt) -> None:
    paths = [*server.app.openapi()["paths"]]
    assert {"/health", "/ready", "/metrics", "/v1/models"} <= set(paths)
    with httpx.Client(base_url=server.url) as client:
        for path in [*paths, "/nowhere", "/openapi.json", "/../etc/passwd"]:
            for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": KEY}):
                status = client.get(path, headers=headers).status_code
                assert status == (200 if path == "/health" else 401), path
            right = {"Authorization": f"Bearer {KEY}"}
        assert client.get("/v1/models", headers=right).json()["data"][0]["id"] == server.model
        assert client.get("/ready", headers=right).json() == {"status": "ready"}

    async def browsers() -> None:
        offered = ["realtime", f"openai-insecure-api-key.{KEY}"]
        async with connect(server.socket_url, subprotocols=offered) as client:  # type: ignore
            assert client.subprotocol == "realtime"
        with pytest.raises(InvalidStatus, match="401"):
            async with connect(server.socket_url, subprotocols=["realtime"]):  # type: ignore
                pass

    run(browsers())


@pytest.mark.parametrize(
    ("origin", "status"), [(None, 200), ("http://evil.example", 403), ("null", 403), ("own", 200)]
)
def test_pages_of_other_origins_are_refused(
    open_server: Running, origin: str | None, status: int
) -> None:
    own = open_server.url if origin == "own" else origin
    headers = {} if own is None else {"Origin": own}
    assert httpx.get(f"{open_server.url}/v1/models", headers=headers).status_code == status


def test_a_name_that_was_made_to_lead_here_is_no_page_of_ours(open_server: Running) -> None:
    """DNS rebinding: the page and the server have the same name, but it is not this machine's."""
    host = f"evil.example:{open_server.port}"
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert httpx.get(f"{open_server.url}/v1/models", headers=headers).status_code == 403


def test_more_sessions_than_allowed_are_told_to_come_back(open_server: Running, run: RunIt) -> None:
    async def talk() -> None:
        async with connect(open_server.socket_url) as one, connect(open_server.socket_url) as two:
            await one.recv()
            await two.recv()
            async with connect(open_server.socket_url) as three:
                error = json.loads(await three.recv())["error"]
                assert error["code"] == "too_many_sessions"
                assert error["proactivellm"]["retry_after_s"] > 0
                with pytest.raises(ConnectionClosed) as closed:
                    await three.recv()
                assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013
            # There is one lane, and one turn has it: the other waits, and is told.
            await send(one, APPEND)
            await until(one, "response.output_text.delta")
            await send(two, APPEND)
            done = (await until(two, "response.done"))[-1]["response"]
            assert done["status_details"]["error"]["code"] == "too_many_streams"
            await send(one, {"type": "response.cancel"})
            await until(one, "response.done")
            await send(two, {"type": "input_text_buffer.commit"})
            await send(two, APPEND)
            await until(two, "response.output_text.delta")
        await free(open_server)

    run(talk())


def test_who_comes_back_misses_nothing(open_server: Running, run: RunIt) -> None:
    async def talk() -> None:
        async with connect(open_server.socket_url) as client:
            events = await until(client, "session.created")
            await send(client, APPEND)
            events += await until(client, "response.output_text.delta")
            where = f"?session={events[0]['session']['id']}&after={events[-1]['proactivellm_seq']}"
            client.transport.abort()
        async with connect(open_server.socket_url + where) as client:
            more = await until(client, "proactivellm.resumed")
            assert more[-1]["source_size"] == 30
            await send(client, {**APPEND, "text": SOURCE[30:]})
            await send(client, {"type": "input_text_buffer.commit"})
            events += more + await until(client, "response.done")
            text = "".join(e["delta"] for e in events if e["type"].endswith("text.delta"))
            assert [e["proactivellm_seq"] for e in events] == [*range(1, len(events) + 1)]
            assert text == events[-1]["response"]["output"][0]["content"][0]["text"] != ""
            async with connect(open_server.socket_url + where) as taken_over:
                again = await until(taken_over, "response.done")
                assert again == events[-len(again) :]
            with pytest.raises(ConnectionClosed):
                await client.recv()
        for query, code in [(where, "session_not_found"), ("?session=x&after=y", "resume_failed")]:
            async with connect(open_server.socket_url + query) as client:
                assert json.loads(await client.recv())["error"]["code"] == code
        await free(open_server)

    run(talk())


def test_one_whose_client_is_gone_makes_room(open_server: Running, run: RunIt) -> None:
    async def talk() -> None:
        async with connect(open_server.socket_url) as stays:
            await stays.recv()
            async with connect(open_server.socket_url) as gone:
                await send(gone, APPEND)
                await until(gone, "response.output_text.delta")
                gone.transport.abort()
            while not any(s.leaving for s in open_server.app.state.sessions._open.values()):
                await asyncio.sleep(0.01)
            async with connect(open_server.socket_url) as new:
                assert json.loads(await new.recv())["type"] == "session.created"
                await send(new, APPEND)
                await until(new, "response.output_text.delta")
        await free(open_server)

    run(talk())


def test_too_much_is_refused_and_nothing_of_it_taken(open_server: Running, run: RunIt) -> None:
    async def talk() -> None:
        async with connect(open_server.socket_url) as client:
            await until(client, "session.created")
            for _ in range(9):
                await send(client, {**APPEND, "text": "the dog " * 30})
            await send(client, {"type": "input_text_buffer.clear"})
            events = await until(client, "input_text_buffer.cleared")
            errors = {e["error"]["code"] for e in events if e["type"] == "error"}
            assert errors and errors <= {"input_buffer_full", "input_too_long"}
            await client.send(b"\x00")
            assert (await until(client, "error"))[-1]["error"]["code"] == "invalid_message"
            await send(client, {**APPEND, "text": "x" * 6000})
            with pytest.raises(ConnectionClosed) as closed:
                await until(client, "error")
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
        await free(open_server, sessions=1)

    run(talk())


def test_a_client_that_does_not_read_is_waited_for_and_let_go(model: str, run: RunIt) -> None:
    most = 8
    settings = Settings(
        models=(model,), unsent_events=most, send_s=0.3, resume_s=0.2, events_per_s=10**6
    )

    async def flood(client: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                await send(client, {"type": "nonsense", "event_id": "x" * 400})

    async def talk(server: Running) -> None:
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.connect(("127.0.0.1", server.port))
        async with connect(server.socket_url, sock=small, close_timeout=0.1) as client:
            await until(client, "session.created")
            client.transport.pause_reading()
            flooding = asyncio.create_task(flood(client))
            (session,) = server.app.state.sessions._open.values()
            await free(server)
            assert session.outbox.last - session.outbox._sent == most
            client.transport.abort()
            await flooding

    with running(settings) as server:
        run(talk(server))


@pytest.mark.parametrize(
    ("limit", "code"), [("idle_s", "session_idle"), ("session_s", "session_expired")]
)
def test_a_session_has_its_time(model: str, run: RunIt, limit: str, code: str) -> None:
    async def talk(server: Running) -> None:
        async with connect(server.socket_url) as client:
            await send(client, APPEND)
            events = await until(client, "error")
            assert events[-1]["error"]["code"] == code
            done = (await until(client, "response.done"))[-1]["response"]
            assert done["status"] == "cancelled"  # and its lane is free
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
        await free(server)

    with running(Settings(models=(model,), **{limit: 0.4})) as server:  # type: ignore[arg-type]
        run(talk(server))


def test_it_drains_before_it_ends(model: str, run: RunIt) -> None:
    async def talk(server: Running) -> None:
        async with connect(server.socket_url) as idle, connect(server.socket_url) as busy:
            await idle.recv()
            await send(busy, APPEND)
            await until(busy, "response.output_text.delta")
            server.server.should_exit = True
            with pytest.raises(ConnectionClosed) as closed:
                await idle.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
            async with httpx.AsyncClient(base_url=server.url) as client:
                assert (await client.get("/ready")).status_code == 503
            async with connect(server.socket_url) as new:
                with pytest.raises(ConnectionClosed):
                    await new.recv()
            await send(busy, {"type": "input_text_buffer.commit"})
            await until(busy, "response.done")
            with pytest.raises(ConnectionClosed) as closed:
                await busy.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012

    with running(Settings(models=(model,), drain_s=20.0)) as server:
        run(talk(server))


def test_keys_do_not_show(model: str) -> None:
    settings = Settings(models=(model,), api_keys=(SecretStr(KEY),))
    assert KEY not in repr(settings) and KEY not in str(create_app(settings).state.settings)


def test_two_events_in_a_row_do_not_wait_for_each_other(open_server: Running, run: RunIt) -> None:
    async def talk() -> float:
        async with connect(open_server.socket_url) as client:
            await client.recv()
            began = asyncio.get_running_loop().time()
            for _ in range(8):
                for _ in range(2):
                    await send(client, {"type": "nonsense"})
                for _ in range(2):
                    await client.recv()
            return asyncio.get_running_loop().time() - began

    assert run(talk()) < 0.3  # a delayed acknowledgement takes 0.04 s


def test_it_speaks_tls(model: str) -> None:
    files = {"tls_certificate": TLS / "certificate.pem", "tls_key": TLS / "key.pem"}
    with running(Settings(models=(model,), **files)) as server:  # type: ignore[arg-type]
        trusted = ssl.create_default_context(cafile=files["tls_certificate"])
        url = f"https://127.0.0.1:{server.port}/health"
        assert httpx.get(url, verify=trusted).json()["status"] == "ok"
