"""The unmodified client of OpenAI sends audio: transcribed live, and as a whole file."""

import asyncio
import base64
import io
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from openai import APIError, BadRequestError
from openai.types.realtime import (
    InputAudioBufferSpeechStartedEvent,
    InputAudioBufferSpeechStoppedEvent,
)
from tests.modality.speech.signals import silence, voice
from tests.serve.conftest import KEY, Running, break_step

from proactivellm.modality.loading import load
from proactivellm.policy.spec import parse_policy
from proactivellm.stream import Hearing, Streams

RATE = 24_000
RunIt = Callable[..., Any]
TRANSCRIPTION = "conversation.item.input_audio_transcription"


@cache
def recording(rate: int = RATE) -> np.ndarray:
    """Two turns of speech, int16."""
    samples = np.concatenate([voice(0.8), silence(0.5), voice(0.5), silence(0.6)])
    places = np.arange(round(len(samples) * rate / 16_000)) * 16_000 / rate
    return (np.interp(places, np.arange(len(samples)), samples) * 32767).astype("<i2")


@cache
def alone(folder: str, rate: int = RATE) -> str:
    """What a stream writes of the recording without a server."""
    model, pcm = load(folder), recording(rate)
    stream = Streams(model, parse_policy("wait-k:2")).open(hearing=Hearing(model, rate))
    for block in np.split(pcm.astype(np.float32) / 32768, range(4800, len(pcm), 4800)):
        stream.push(block)
    stream.close()
    return "".join(event.text for event in stream.events() if event.kind == "WRITE")


def encoded(pcm: np.ndarray) -> str:
    return base64.b64encode(pcm.tobytes()).decode()


def session(detection: Any = None, **audio: Any) -> dict[str, Any]:
    audio_input = {"format": {"type": "audio/pcm", "rate": RATE}, "turn_detection": detection}
    return {
        "type": "transcription",
        "audio": {"input": {**audio_input, **audio}},
        "proactivellm": {"policy": "wait-k:2", "decisions": True},
    }


async def until(connection: Any, kind: str, times: int = 1) -> list[Any]:
    """Events up to the first of a kind, or the one after so many."""
    events: list[Any] = []
    while sum(event.type == kind for event in events) < times:
        events.append(await connection.recv())
        assert kind == "error" or events[-1].type != "error", events[-1]
    return events


def named(events: list[Any], what: str) -> list[Any]:
    return [event for event in events if event.type == f"{TRANSCRIPTION}.{what}"]


def test_deltas_come_while_audio_arrives(listens: Running, listener: str, run: RunIt) -> None:
    pcm = recording()
    half = len(pcm) // 2

    async def talk() -> list[Any]:
        realtime = listens.client().realtime
        async with realtime.connect(extra_query={"intent": "transcription"}) as connection:
            await connection.session.update(session=session())
            for piece in np.split(pcm[:half], range(1999, half, 1999)):
                await connection.input_audio_buffer.append(audio=encoded(piece))
            events = await until(connection, f"{TRANSCRIPTION}.delta")
            await connection.input_audio_buffer.append(audio=encoded(pcm[half:]))
            await connection.input_audio_buffer.commit()
            return events + await until(connection, f"{TRANSCRIPTION}.completed")

    events = run(talk())
    created, updated = events[0].session, events[1].session
    assert created.type == "transcription" and created.audio.input.turn_detection is not None
    assert updated.audio.input.turn_detection is None
    assert updated.audio.input.format.rate == RATE
    (completed,) = named(events, "completed")
    kinds = [event.type for event in events]
    assert kinds.index(f"{TRANSCRIPTION}.delta") < kinds.index("input_audio_buffer.committed")
    assert kinds.count("conversation.item.done") == 1
    decisions = [event for event in events if event.type == "proactivellm.decision"]
    assert {decision.action for decision in decisions} == {"READ", "WRITE"}
    deltas = named(events, "delta")
    assert "".join(delta.delta for delta in deltas) == completed.transcript
    assert completed.transcript == alone(listener).lstrip() != ""
    assert {event.item_id for event in [*deltas, completed]} == {completed.item_id}
    assert completed.usage.seconds == round(len(pcm) / RATE, 3)
    assert deltas[0].proactivellm["source_s"] > 0 and deltas[0].proactivellm["reason"]


def test_pauses_end_items(listens: Running, listener: str, run: RunIt) -> None:
    async def talk() -> list[Any]:
        async with listens.client().realtime.connect(model=listener) as connection:
            await connection.session.update(session=session({"type": "server_vad"}))
            await connection.input_audio_buffer.append(audio=encoded(recording()))
            events = await until(connection, f"{TRANSCRIPTION}.completed", 2)
            await connection.input_audio_buffer.clear()
            return events + await until(connection, "input_audio_buffer.cleared")

    events = run(talk())
    first, second = named(events, "completed")
    speech = [event for event in events if ".speech_" in event.type]
    assert [event.type.rpartition("_")[2] for event in speech] == ["started", "stopped"] * 2
    for event in speech:
        kind = InputAudioBufferSpeechStartedEvent
        kind = InputAudioBufferSpeechStoppedEvent if "stopped" in event.type else kind
        kind.model_validate(event.to_dict(), strict=True)
    ids = [completed.item_id for completed in (first, second) for _ in range(2)]
    assert [event.item_id for event in speech] == ids
    # 0.8 s of voice, 0.5 s of silence, 0.5 s of voice: with 0.25 s before it, and 0.4 s after it.
    places = [getattr(e, "audio_start_ms", getattr(e, "audio_end_ms", None)) for e in speech]
    assert places == pytest.approx([0, 1200, 1050, 2200], abs=200)
    assert first.item_id != second.item_id and first.transcript and second.transcript
    _, committed = [event for event in events if event.type == "input_audio_buffer.committed"]
    assert committed.previous_item_id == first.item_id
    whole = alone(listener)
    assert f"{first.transcript} {second.transcript}" == whole.lstrip()


@pytest.mark.parametrize(("kind", "law"), [("audio/pcmu", "ULAW"), ("audio/pcma", "ALAW")])
def test_telephony(listens: Running, listener: str, run: RunIt, kind: str, law: str) -> None:
    """G.711 is heard as the samples that soundfile makes of it."""
    raw = io.BytesIO()
    how: dict[str, Any] = {"format": "RAW", "subtype": law}
    soundfile.write(raw, recording(8000), 8000, **how)
    pcm = soundfile.read(io.BytesIO(raw.getvalue()), samplerate=8000, channels=1, **how)[0]

    async def talk(audio: bytes, audio_format: dict[str, Any]) -> Any:
        realtime = listens.client().realtime
        async with realtime.connect(extra_query={"intent": "transcription"}) as connection:
            await connection.session.update(session=session(format=audio_format))
            await connection.input_audio_buffer.append(audio=base64.b64encode(audio).decode())
            await connection.input_audio_buffer.commit()
            return await until(connection, f"{TRANSCRIPTION}.completed")

    plain = (pcm * 32768).astype("<i2").tobytes()
    expected = run(talk(plain, {"type": "audio/pcm", "rate": 8000}))[-1]
    events = run(talk(raw.getvalue(), {"type": kind}))
    assert events[1].session.audio.input.format.to_dict() == {"type": kind}
    assert events[-1].transcript == expected.transcript != ""
    assert events[-1].usage == expected.usage


def responses(events: list[Any]) -> list[str]:
    """What each response said."""
    done = [event.response for event in events if event.type == "response.done"]
    assert {response.status for response in done} <= {"completed", "incomplete"}  # cut by length
    texts = [response.output[0].content[0].text for response in done]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "".join(texts)
    return texts


def test_audio_is_answered_while_it_arrives(listens: Running, listener: str, run: RunIt) -> None:
    pcm = recording()

    async def talk() -> list[Any]:
        async with listens.client().realtime.connect(model=listener) as connection:
            fields = {"type": "realtime", "proactivellm": {"policy": "wait-k:2"}}
            await connection.session.update(session=fields)
            await connection.input_audio_buffer.append(audio=encoded(pcm[: len(pcm) // 3]))
            events = await until(connection, "response.output_text.delta")
            await connection.input_audio_buffer.append(audio=encoded(pcm[len(pcm) // 3 :]))
            return events + await until(connection, "response.done", 2)

    events = run(talk())
    assert events[1].session.type == "realtime"
    assert events[1].session.audio.input.turn_detection.type == "server_vad"
    assert "".join(responses(events)) == alone(listener) != ""


def test_audio_is_answered_when_asked(listens: Running, listener: str, run: RunIt) -> None:
    pcm = recording()

    async def talk() -> list[Any]:
        async with listens.client().realtime.connect(model=listener) as connection:
            fields = {**session(), "type": "realtime"}
            await connection.session.update(session=fields)
            for piece in np.split(pcm, 5):
                await connection.input_audio_buffer.append(audio=encoded(piece))
            await connection.input_audio_buffer.commit()
            events = await until(connection, "input_audio_buffer.committed")
            await connection.response.create()
            return events + await until(connection, "response.done")

    assert responses(run(talk())) == [alone(listener)]


def test_what_is_no_audio_is_refused(listens: Running, listener: str, run: RunIt) -> None:
    wrong: list[tuple[dict[str, Any], str, str | None]] = [
        ({"type": "input_audio_buffer.append", "audio": "a*b="}, "invalid_audio", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "QUJD"}, "invalid_audio", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "ä"}, "invalid_audio", "audio"),
        ({"type": "input_audio_buffer.append"}, "invalid_event", "audio"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None),
        ({"type": "response.create"}, "no_input", None),
    ]
    changes: list[tuple[dict[str, Any], str]] = [
        (session(format={"type": "audio/opus"}), "session.audio.input.format.type"),
        (session(format={"type": "audio/pcm", "rate": 3}), "session.audio.input.format.rate"),
        (session({"type": "semantic_vad"}), "session.audio.input.turn_detection.type"),
        (session(noise_reduction={"type": "near_field"}), "session.audio.input.noise_reduction"),
        (
            session(transcription={"model": listens.model}),
            "session.audio.input.transcription.model",
        ),
        ({"type": "transcription", "include": ["x"]}, "session.include"),
    ]
    wrong += [
        ({"type": "session.update", "session": fields}, "not_supported", param)
        for fields, param in changes
    ]

    async def talk() -> None:
        async with listens.client().realtime.connect(model=listener) as connection:
            for place, (event, code, param) in enumerate(wrong):
                await connection.send({**event, "event_id": f"e{place}"})  # type: ignore[arg-type]
                error = (await until(connection, "error"))[-1].error
                assert (error.event_id, error.code, error.param) == (f"e{place}", code, param)
            await connection.session.update(session=session())
            await connection.input_audio_buffer.append(audio=encoded(recording()))
            await connection.input_audio_buffer.commit()
            completed = (await until(connection, f"{TRANSCRIPTION}.completed"))[-1]
            assert completed.transcript

    run(talk())


def file_of(pcm: np.ndarray, rate: int) -> tuple[str, bytes]:
    content = io.BytesIO()
    soundfile.write(content, pcm, rate, format="WAV")
    return "talk.wav", content.getvalue()


def test_a_file_whole_and_streamed(listens: Running, listener: str, run: RunIt) -> None:
    pcm = recording(16_000)
    more = {"model": listener, "extra_body": {"policy": "wait-k:2"}}

    async def ask() -> tuple[Any, list[Any]]:
        transcriptions = listens.client().audio.transcriptions
        whole = await transcriptions.create(file=file_of(pcm, 16_000), **more)
        streamed = await transcriptions.create(file=file_of(pcm, 16_000), stream=True, **more)
        return whole, [event async for event in streamed]

    whole, events = run(ask())
    assert whole.text == alone(listener, 16_000).strip() != ""
    assert whole.usage.seconds == round(len(pcm) / 16_000, 3)
    *deltas, done = events
    assert {delta.type for delta in deltas} == {"transcript.text.delta"} and len(deltas) > 2
    assert done.type == "transcript.text.done"
    assert "".join(delta.delta for delta in deltas) == done.text
    assert done.text.strip() == whole.text


def test_a_file_that_cannot_be_heard_is_refused(
    listens: Running, listener: str, run: RunIt
) -> None:
    good = file_of(recording(16_000)[:3000], 16_000)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"file": ("talk.wav", b"no audio at all")}, "invalid_audio"),
        ({"file": ("talk.wav", b"x" * 300_000)}, "input_too_long"),
        ({"file": good, "model": listens.model}, "not_supported"),
        ({"file": good, "model": "none"}, "model_not_found"),
        ({"file": good, "response_format": "diarized_json"}, "not_supported"),
        ({"file": good, "response_format": "srt", "stream": True}, "not_supported"),
        ({"file": good, "timestamp_granularities": ["word"]}, "not_supported"),
        ({"file": good, "extra_body": {"policy": "wait-k:x"}}, "invalid_policy"),
    ]

    async def ask() -> None:
        transcriptions = listens.client().audio.transcriptions
        for given, code in wrong:
            with pytest.raises(BadRequestError) as refused:
                await transcriptions.create(**{"model": listener, **given})
            assert refused.value.code == code

    run(ask())


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_is_told(
    listens: Running, listener: str, run: RunIt, stream: bool
) -> None:
    good = {"model": listener, "file": file_of(recording(16_000), 16_000)}
    good["extra_body"] = {"policy": "wait-k:2"}

    async def ask() -> str:
        transcriptions = listens.client().audio.transcriptions
        break_step(listens.app.state.models.get(listener))
        with pytest.raises(APIError) as failed:
            told = await transcriptions.create(**good, stream=stream)
            async for _ in told:
                pass
        assert failed.value.code == "engine_failed"
        return str((await transcriptions.create(**good)).text)

    assert run(ask()) == alone(listener, 16_000).strip()


def test_who_leaves_while_a_file_is_heard_gives_the_lane_back(
    listens: Running, listener: str, run: RunIt, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = listens.app.state.models.get(listener)
    streams = served._worker._streams
    step = streams.step
    long = np.tile(recording(2000), 16)  # 38 s, and some 120 steps

    def slow() -> Any:
        time.sleep(0.1)
        return step()

    async def ask(stream: bool) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        asked = {"model": listener, "stream": str(stream)}
        async with httpx.AsyncClient(base_url=listens.url, headers=headers) as client:
            await client.post(
                "/v1/audio/transcriptions", data=asked, files={"file": file_of(long, 2000)}
            )

    async def leave() -> None:
        for stream in (False, True):
            asking = asyncio.create_task(ask(stream))
            while not served.active:
                assert not asking.done()
                await asyncio.sleep(0.01)
            asking.cancel()
            async with asyncio.timeout(6):
                while served.active:
                    await asyncio.sleep(0.01)

    monkeypatch.setattr(streams, "step", slow)
    run(leave())


def test_who_leaves_gives_the_lane_back(listens: Running, listener: str, run: RunIt) -> None:
    async def talk() -> None:
        served = listens.app.state.models.get(listener)
        async with listens.client().realtime.connect(model=listener) as connection:
            await connection.session.update(session=session())
            await connection.input_audio_buffer.append(audio=encoded(recording()[:12_000]))
            await until(connection, "proactivellm.decision")
            assert served.active == 1
            await connection.input_audio_buffer.clear()
            await until(connection, "input_audio_buffer.cleared")
            await connection.input_audio_buffer.append(audio=encoded(recording()[:12_000]))
            await until(connection, "proactivellm.decision")
        while served.active:
            await asyncio.sleep(0.01)

    run(talk())
