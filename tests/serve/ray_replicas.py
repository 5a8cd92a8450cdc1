"""`proactivellm serve --ray`: two replicas on this machine. Needs Ray: run by `make ray`.

The processes take a minute to come up on two cores, so that one server is shared, and the test that
kills a replica, and then the server, come last.
"""

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema
from tests.serve.conftest import KEY
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from proactivellm.serve.replicas import build
from proactivellm.serve.session_ids import place_of

ROOT = Path(__file__).parents[2]
SOURCE = "a man in a hat looks at the window and sleeps"
START_S = 240
SESSIONS = 8


class Served(NamedTuple):
    """The command, and what it has written to standard error."""

    command: "subprocess.Popen[str]"
    url: str
    lines: list[str]

    def process_of(self, session: str) -> int:
        """The process of the replica that has opened a session, as its log tells."""
        tag = hashlib.sha256(session.encode()).hexdigest()[:12]
        (line,) = (line for line in self.lines if tag in line and "session_opened" in line)
        found = re.search(r"pid=(\d+)", line)
        assert found is not None
        return int(found[1])

    def open_sessions(self) -> dict[str, int]:
        """By replica, as it tells Prometheus."""
        headers = {"Authorization": f"Bearer {KEY}"}
        told = httpx.get(f"{self.url}/metrics", headers=headers, timeout=20)
        assert told.status_code == 200, told.text
        found = re.findall(
            r'^proactivellm_sessions{replica="(\w+)"} (\d+)', told.text, re.MULTILINE
        )
        return {place: int(number) for place, number in found}

    def connect(self, query: str = "") -> Any:
        """A connection with the key."""
        headers = {"Authorization": f"Bearer {KEY}"}
        url = self.url.replace("http", "ws", 1)
        return connect(f"{url}/v1/realtime{query}", additional_headers=headers)


@pytest.fixture(scope="module")
def served(model: str) -> Iterator[Served]:
    limits = ["--sessions", "6", "--drain-s", "20", "--message-bytes", "5000"]
    flags = ["--ray", "--replicas", "2", "--replica-cpus", "0.5", "--port", "0", "--model", model]
    variables = os.environ | {"PROACTIVELLM_SERVE_API_KEYS": KEY, "RAY_COLOR_PREFIX": "0"}
    command = subprocess.Popen(
        [sys.executable, "-m", "proactivellm", "serve", *flags, *limits],
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
    )
    assert command.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=lines.extend, args=(command.stderr,), daemon=True)
    reader.start()
    try:
        until_s = time.monotonic() + START_S
        while not (told := [line for line in lines if line.startswith("listening on ")]):
            assert time.monotonic() < until_s and command.poll() is None, "".join(lines)
            time.sleep(0.1)
        yield Served(command, told[0].split()[-1], lines)
    finally:
        if command.poll() is None:
            command.send_signal(signal.SIGTERM)
        command.wait(90)


class Talk:
    """A client in the middle of a turn."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.text, self.seq, self.id, self.error = "", 0, "", ""

    async def open(self) -> "Talk":
        self._client = await self._served.connect()
        created = await self.until("session.created")
        self.id = "" if self.error else created["session"]["id"]
        return self

    async def send(self, event: dict[str, Any]) -> None:
        await self._client.send(json.dumps(event))

    async def append(self, text: str) -> None:
        await self.send({"type": "input_text_buffer.append", "text": text})

    async def until(self, kind: str) -> dict[str, Any]:
        """The next event of that type; collects the text, refuses a gap, ends at an error."""
        while True:
            event: dict[str, Any] = json.loads(await self._client.recv())
            if "proactivellm_seq" in event:
                assert event["proactivellm_seq"] == self.seq + 1
                self.seq += 1
            if event["type"] == "response.output_text.delta":
                self.text += event["delta"]
            self.error = event["error"]["code"] if event["type"] == "error" else ""
            if event["type"] == kind or self.error:
                return event

    async def lose(self) -> None:
        """As a network does."""
        self._client.transport.abort()
        with suppress(ConnectionClosed):
            while True:
                await self._client.recv()

    async def resume(self) -> str:
        """Comes back; the code of the error, if that cannot be."""
        self._client = await self._served.connect(f"?session={self.id}&after={self.seq}")
        await self.until("proactivellm.resumed")
        return self.error

    async def closed(self) -> int | None:
        """Reads on until the connection ends; with which code."""
        with pytest.raises(ConnectionClosed) as closed:
            await self.until("nothing")
            await self.until("nothing")
        return closed.value.rcvd.code if closed.value.rcvd else None

    async def leave(self) -> None:
        await self._client.close()


async def begun(served: Served, number: int) -> list[Talk]:
    """Sessions that have read a part of their source and written something of it."""
    talks = [await Talk(served).open() for _ in range(number)]
    for talk in talks:
        await talk.append(SOURCE[:30])
        await talk.until("response.output_text.delta")
    return talks


async def ended(talk: Talk) -> str:
    """What a session has written when its source has ended."""
    await talk.append(SOURCE[30:])
    await talk.send({"type": "input_text_buffer.commit"})
    done = await talk.until("response.done")
    assert done["response"]["status"] in ("completed", "incomplete")
    return talk.text


async def left(served: Served, talks: list[Talk]) -> None:
    """All leave, and their replicas have heard of it."""
    for talk in talks:
        await talk.leave()
    while any(served.open_sessions().values()):
        await asyncio.sleep(0.1)


def within(coroutine: Any, seconds: float = 120) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, seconds))


def test_the_configuration_for_kubernetes_is_one() -> None:
    service = yaml.safe_load((ROOT / "deploy/kuberay.yaml").read_text())
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert isinstance(build(application.args), Application)
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={service['spec']['rayClusterConfig']['rayVersion']}" in pins


def test_sessions_spread_and_come_back_to_the_replica_that_holds_them(served: Served) -> None:
    async def talks() -> None:
        talks = await begun(served, SESSIONS)
        assert sorted(Counter(place_of(talk.id) for talk in talks).values()) == [4, 4]
        for talk in talks:  # whichever has the fewest connections now, it is often the other one
            await talk.lose()
            assert await talk.resume() == ""
        written = [await ended(talk) for talk in talks]
        assert len({*written}) == 1 and len(written[0]) > 8
        assert served.open_sessions() == dict.fromkeys({place_of(talk.id) for talk in talks}, 4)
        await left(served, talks)

    within(talks())


def test_what_a_replica_refuses_is_told_as_by_one_server(served: Served) -> None:
    async def refusals() -> None:
        with pytest.raises(InvalidStatus, match="401"):
            await connect(f"{served.url.replace('http', 'ws', 1)}/v1/realtime")
        async with served.connect() as client:
            await client.send("x" * 5001)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await client.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
        talks = [await Talk(served).open() for _ in range(12)]
        refused = await Talk(served).open()
        assert refused.error == "too_many_sessions" and await refused.closed() == 1013
        await left(served, talks)

    within(refusals())
    with httpx.Client(base_url=served.url) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/health").json()["status"] == "ok"


def test_a_replica_that_is_killed_takes_its_own_sessions_along_and_no_others(
    served: Served,
) -> None:
    async def talks() -> None:
        talks = await begun(served, SESSIONS)
        victim = place_of(talks[0].id)
        lost = [talk for talk in talks if place_of(talk.id) == victim]
        others = [talk for talk in talks if place_of(talk.id) != victim]
        assert len(lost) == len(others) == 4
        os.kill(served.process_of(talks[0].id), signal.SIGKILL)
        for talk in lost:
            assert await talk.closed() in (1006, 1011, 1012, None)
        for talk in lost:  # its client is told at once, and begins anew
            assert await talk.resume() == "session_not_found"
        assert len({await ended(talk) for talk in others}) == 1
        again = await begun(served, 2)  # as many as one may hold beside the four
        assert {await ended(talk) for talk in again} == {others[0].text}
        await left(served, [*others, *again])
        places: set[str] = set()
        while len(places - {victim}) < 2:  # another replica takes the place of the one that died
            talks = [await Talk(served).open() for _ in range(4)]
            places |= {place_of(talk.id) for talk in talks}
            for talk in talks:
                await talk.leave()
            await asyncio.sleep(1)

    within(talks(), START_S)


def test_a_signal_lets_what_is_written_end(served: Served) -> None:
    async def talks() -> None:
        talks = await begun(served, 4)
        served.command.send_signal(signal.SIGTERM)
        await asyncio.sleep(2)
        assert len({await ended(talk) for talk in talks}) == 1
        for talk in talks:
            assert await talk.closed() == 1012

    within(talks())
    assert served.command.wait(60) == 143
    log = "".join(served.lines)
    assert "session_opened" in log and "window" not in log and KEY not in log
