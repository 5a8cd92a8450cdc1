"""The thread of an engine dies: whom that concerns, what they are told, and how it goes on."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from tests.serve import test_translations as interpreting
from tests.serve.conftest import SECRET, Running, break_thread, running
from tests.serve.test_audio import TRANSCRIPTION, alone, encoded, recording, session, until
from tests.serve.test_realtime import alone as text_alone
from websockets.asyncio.client import ClientConnection, connect

from proactivellm.serve.settings import Settings

RunIt = Callable[..., Any]


async def append(client: ClientConnection, text: str) -> None:
    await client.send(json.dumps({"type": "input_text_buffer.append", "text": text}))


async def events(client: ClientConnection, kind: str) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    while not told or told[-1]["type"] != kind:
        told.append(json.loads(await client.recv()))
    return told


def test_all_at_work_are_told_and_who_waits_for_a_lane_goes_on(model: str, run: RunIt) -> None:
    delta = "response.output_text.delta"

    async def talk(server: Running) -> None:
        url, (served,) = server.socket_url, server.app.state.models
        async with connect(url) as one, connect(url) as two, connect(url) as waits:
            told = []
            for client in (one, two):
                await append(client, SECRET)
                told.append(await events(client, delta))
            await append(waits, SECRET)
            await waits.send(json.dumps({"type": "input_text_buffer.commit"}))
            while not served.waiting:
                await asyncio.sleep(0.01)
            break_thread(served)
            for client, before in zip((one, two), told, strict=True):
                rest = await events(client, "response.done")
                response = rest[-1]["response"]
                error = response["status_details"]["error"]
                assert (response["status"], error["code"]) == ("failed", "engine_failed")
                written = "".join(e["delta"] for e in before + rest if e["type"] == delta)
                assert response["output"][0]["content"][0]["text"] == written != ""
            response = (await events(waits, "response.done"))[-1]["response"]
            assert response["output"][0]["content"][0]["text"] == text_alone(model, SECRET)
            assert served.active == served.waiting == 0

    with running(Settings(models=(model,), streams=2)) as server:
        run(talk(server))


def test_dictation_goes_on_with_the_next_audio(listens: Running, listener: str, run: RunIt) -> None:
    half = len(recording()) // 2

    async def talk() -> Any:
        realtime = listens.client().realtime
        async with realtime.connect(extra_query={"intent": "transcription"}) as connection:
            await connection.session.update(session=session())
            await connection.input_audio_buffer.append(audio=encoded(recording()[:half]))
            await until(connection, f"{TRANSCRIPTION}.delta")
            break_thread(listens.app.state.models.get(listener))
            failed = (await until(connection, f"{TRANSCRIPTION}.failed"))[-1]
            assert failed.error.code == "engine_failed"
            await connection.input_audio_buffer.append(audio=encoded(recording()))
            await connection.input_audio_buffer.commit()
            return (await until(connection, f"{TRANSCRIPTION}.completed"))[-1].transcript

    assert run(talk()) == alone(listener).lstrip()


def test_an_interpreter_goes_on_with_the_next_line(listens: Running, run: RunIt) -> None:
    async def talk() -> tuple[Any, list[Any]]:
        async with interpreting.connect(listens, listens.model) as socket:
            talk = interpreting.Talk(socket)
            line, buffer = interpreting.LINES[1], "session.input_text_buffer.append"
            await talk.send(buffer, text=f"{SECRET} ")
            await talk.until("session.output_transcript.delta")
            break_thread(listens.app.state.models.get(listens.model))
            error = (await talk.until("error"))[-1].error
            await talk.send(buffer, text=f"{line}\n")
            await talk.send("session.close")
            return error, await talk.until("session.closed")

    error, told = run(talk())
    assert (error.type, error.code) == ("server_error", "engine_failed")
    written = interpreting.written(interpreting.side(told, "output"))
    assert written.strip() == text_alone(listens.model, interpreting.LINES[1]).strip() != ""
