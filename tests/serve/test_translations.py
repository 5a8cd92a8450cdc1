"""OpenAI's interpreter protocol: events are those of the types of its own package."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import websockets
from openai.types.realtime import RealtimeTranslationServerEvent
from pydantic import TypeAdapter
from tests.serve.conftest import KEY, Running
from tests.serve.test_audio import alone, encoded, recording
from tests.serve.test_realtime import alone as text_alone

RunIt = Callable[..., Any]
SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeTranslationServerEvent)
LINES = ("a man in a hat looks at the window", "the dog sleeps")


class Talk:
    """A connection; events of OpenAI's are parsed by its types, strictly."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.close_code = socket, None

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def until(self, kind: str) -> list[Any]:
        events: list[Any] = []
        while not events or events[-1].type != kind:
            told = json.loads(await self.socket.recv())
            if not told["type"].startswith("proactivellm."):
                events.append(SERVER_EVENT.validate_python(told, strict=True))
        return events


def connect(server: Running, model: str) -> Any:
    url = f"ws://127.0.0.1:{server.port}/v1/realtime/translations"
    headers = {"Authorization": f"Bearer {KEY}"}
    return websockets.connect(f"{url}?model={model}", additional_headers=headers)


def side(events: list[Any], name: str) -> list[Any]:
    return [event for event in events if event.type == f"session.{name}_transcript.delta"]


def written(events: list[Any]) -> str:
    return "".join(event.delta for event in events)


@pytest.mark.parametrize("transcribed", [True, False])
def test_audio(listens: Running, listener: str, run: RunIt, transcribed: bool) -> None:
    pcm = recording()

    async def interpret() -> list[Any]:
        async with connect(listens, listener) as socket:
            talk = Talk(socket)
            transcription = {"model": listener} if transcribed else None
            audio = {"input": {"transcription": transcription}, "output": {"language": "de"}}
            more = {"proactivellm": {"policy": "wait-k:2"}}
            await talk.send("session.update", session={"audio": audio, **more})
            for start in range(0, len(pcm), 4800):
                piece = encoded(pcm[start : start + 4800])
                await talk.send("session.input_audio_buffer.append", audio=piece)
                if start == 4800 * 8:
                    early = await talk.until("session.output_transcript.delta")
            await talk.send("session.close")
            events = early + await talk.until("session.closed")
            with pytest.raises(websockets.ConnectionClosedOK):
                await socket.recv()
            return events

    events = run(interpret())
    created, updated, *_ = events
    assert created.session.type == "translation" and created.session.model == listener
    assert updated.session.audio.output.language == "de"
    output = side(events, "output")
    assert written(output) == alone(listener).lstrip() != ""
    times = [event.elapsed_ms for event in output]
    assert times == sorted(times) and 0 < times[0] < times[-1] <= 2400
    assert bool(side(events, "input")) == transcribed


def test_text_in_place_of_audio(listens: Running, run: RunIt) -> None:
    async def interpret() -> list[Any]:
        async with connect(listens, listens.model) as socket:
            talk = Talk(socket)
            audio = {"input": {"transcription": {"model": "any"}}}
            await talk.send("session.update", session={"audio": audio})
            text = f"{LINES[0]}\n\n{LINES[1]}"
            for start in range(0, len(text), 7):
                await talk.send("session.input_text_buffer.append", text=text[start : start + 7])
                if start == 28:
                    early = await talk.until("session.output_transcript.delta")
            await talk.send("session.close")
            return early + await talk.until("session.closed")

    events = run(interpret())
    expected = "\n".join(text_alone(listens.model, line).lstrip() for line in LINES)
    assert written(side(events, "output")) == expected
    assert written(side(events, "input")) == f"{LINES[0]}\n\n{LINES[1]}"


def test_what_cannot_be_had_is_refused(listens: Running, listener: str, run: RunIt) -> None:
    audio_append = "session.input_audio_buffer.append"
    wrong: list[tuple[str, dict[str, Any], str, str | None]] = [
        (audio_append, {"audio": "QQ"}, "invalid_audio", "audio"),
        (audio_append, {"audio": "QUJD"}, "invalid_audio", "audio"),
        ("session.input_text_buffer.append", {"text": "x"}, "not_supported", "type"),
        ("input_audio_buffer.commit", {}, "unknown_event", "type"),
        (
            "session.update",
            {"session": {"audio": {"input": {"transcription": {"model": "none"}}}}},
            "model_not_found",
            "session.audio.input.transcription.model",
        ),
        ("session.update", {"session": {"model": "x"}}, "not_supported", "session.model"),
    ]

    async def interpret() -> None:
        async with connect(listens, listener) as socket:
            talk = Talk(socket)
            for kind, fields, code, param in wrong:
                await talk.send(kind, event_id="mine", **fields)
                error = (await talk.until("error"))[-1].error
                assert (error.event_id, error.code, error.param) == ("mine", code, param)
            await talk.send("session.close")
            await talk.until("session.closed")

    run(interpret())
