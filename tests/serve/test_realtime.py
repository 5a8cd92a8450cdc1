"""The unmodified client of OpenAI talks text with the server."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from openai import OpenAI
from tests.serve.conftest import KEY, Running

from proactivellm.modality.loading import load
from proactivellm.policy.spec import parse_policy
from proactivellm.serve.realtime.response import Response, Wish
from proactivellm.serve.realtime.turn import Tokens
from proactivellm.session.events import Ending
from proactivellm.stream import StreamEvent, stream_text

SOURCE = "a man in a hat looks at the window and sleeps"
RunIt = Callable[..., Any]
loaded = functools.cache(load)


def alone(folder: str, source: str, policy: str = "wait-k:3") -> str:
    """What a stream writes without a server."""
    events = stream_text(loaded(folder), parse_policy(policy), source)
    return "".join(event.text for event in events if event.kind == "WRITE")


async def until(connection: Any, kind: str) -> list[Any]:
    """Events up to the first of a kind."""
    events = []
    while True:
        events.append(await connection.recv())
        if events[-1].type == kind:
            return events
        assert events[-1].type != "error", events[-1]


def text_of(events: list[Any]) -> str:
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")


async def say(connection: Any, text: str) -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await connection.conversation.item.create(item=item)
    await connection.response.create()


def test_whole_text_in_the_response_is_that_of_a_stream(server: Running, run: RunIt) -> None:
    async def talk() -> list[Any]:
        async with server.client().realtime.connect(model=server.model) as connection:
            await connection.session.update(
                session={"type": "realtime", "output_modalities": ["text"], "instructions": "x"}
            )
            await say(connection, SOURCE)
            return await until(connection, "response.done")

    events = run(talk())
    assert [event.type for event in events if not event.type.endswith("text.delta")] == [
        "session.created",
        "session.updated",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    assert text_of(events) == alone(server.model, SOURCE) == events[-5].text
    response = events[-1].response
    assert response.status == "incomplete" and response.output[0].content[0].text == events[-5].text
    assert response.usage.output_tokens == 16
    assert events[1].session.proactivellm["ignored"] == ["instructions"]
    assert [event.proactivellm_seq for event in events] == [*range(1, len(events) + 1)]


def test_deltas_come_before_the_input_ends(server: Running, run: RunIt) -> None:
    async def talk() -> list[Any]:
        async with server.client().realtime.connect(model=server.model) as connection:
            extension = {"policy": "wait-k:2", "decisions": True}
            await connection.session.update(session={"type": "realtime", "proactivellm": extension})
            pieces = [SOURCE[i : i + 5] for i in range(0, len(SOURCE), 5)]
            for piece in pieces[:4]:
                await connection.send({"type": "input_text_buffer.append", "text": piece})
            events = await until(connection, "response.output_text.delta")
            for piece in pieces[4:]:
                await connection.send({"type": "input_text_buffer.append", "text": piece})
            await connection.send({"type": "input_text_buffer.commit"})
            return events + await until(connection, "response.done")

    events = run(talk())
    kinds = [event.type for event in events]
    assert kinds.index("response.output_text.delta") < kinds.index("input_text_buffer.committed")
    assert text_of(events) == alone(server.model, SOURCE, "wait-k:2")
    first = next(event for event in events if event.type == "response.output_text.delta")
    assert first.proactivellm["source_units"] == 2
    assert first.proactivellm["reason"] in ("policy", "inside a word")
    decisions = [event for event in events if event.type == "proactivellm.decision"]
    reads = [event for event in decisions if event.action == "READ"]
    assert [event.source_units for event in reads] == [*range(1, len(SOURCE.split()) + 1)]
    assert any(event.action == "WRITE" and event.target_tokens == 16 for event in decisions)


def test_silence_is_told_while_nothing_is_written(
    run: RunIt, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, told = 0.0, list[dict[str, Any]]()
    clock = SimpleNamespace(monotonic=lambda: now_s)
    monkeypatch.setattr("proactivellm.serve.realtime.extension.time", clock)

    class Source:
        ending, thinks, tokens, forwards = Ending.END_TOKEN, False, Tokens(), 0

        async def events(self) -> AsyncIterator[StreamEvent]:
            nonlocal now_s
            for kind, now_s in (("READ", 0.5), ("WRITE", 0.9), ("READ", 1.5), ("READ", 2.0)):
                yield StreamEvent(kind=kind, text="x", units_read=1, elapsed_s=now_s)

    async def send(event: dict[str, Any]) -> None:
        told.append(event)

    run(Response(Source(), Wish(conversation_id=None), send).run())
    silences = [event for event in told if event["type"] == "proactivellm.silence"]
    assert [event["since_s"] for event in silences] == [1.1]


def test_cancel_ends_the_response_and_frees_the_lane(server: Running, run: RunIt) -> None:
    async def talk() -> Any:
        async with server.client().realtime.connect(model=server.model) as connection:
            await connection.send({"type": "input_text_buffer.append", "text": SOURCE[:30]})
            await until(connection, "response.output_text.delta")
            (served,) = server.app.state.models
            assert served.active == 1
            await connection.response.cancel()
            done = (await until(connection, "response.done"))[-1]
            assert served.active == 0
            await say(connection, "the dog sleeps on a sofa")  # the session goes on
            await until(connection, "response.done")
            return done

    response = run(talk()).response
    assert (response.status, response.status_details.reason) == ("cancelled", "client_cancelled")


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "nonsense"}, "unknown_event", "type"),
        ({"type": "response.create"}, "no_input", None),
        ({"type": "response.cancel"}, "response_cancel_not_active", "response_id"),
        ({"type": "input_text_buffer.append", "text": 3}, "invalid_event", "text"),
        ({"type": "input_text_buffer.append", "text": "\ud800"}, "invalid_json", None),
        ({"type": "input_audio_buffer.append", "audio": ""}, "not_supported", "type"),
        (
            {"type": "session.update", "session": {"proactivellm": {"policy": "wait-k:0"}}},
            "invalid_policy",
            "session.proactivellm.policy",
        ),
    ],
)
def test_errors_are_objects_that_name_the_event(
    server: Running, run: RunIt, event: dict[str, Any], code: str, param: str | None
) -> None:
    async def talk() -> Any:
        async with server.client().realtime.connect() as connection:
            await connection.recv()
            await connection.send({**event, "event_id": "mine"})
            return await connection.recv()

    error = run(talk()).error
    assert (error.type, error.code, error.param) == ("invalid_request_error", code, param)
    assert error.event_id == ("mine" if code != "invalid_json" else None) and error.message


def test_a_wrong_key_is_refused(server: Running, run: RunIt) -> None:
    async def talk() -> None:
        async with server.client(key="wrong").realtime.connect():
            pass

    with pytest.raises(Exception, match="401"):
        run(talk())


@pytest.mark.filterwarnings("ignore:connect.. must be used as:DeprecationWarning")  # by openai
def test_the_client_without_coroutines(server: Running) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key=KEY)
    with client.realtime.connect(model=server.model) as connection:
        content = {"type": "input_text", "text": SOURCE}
        connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [content]}
        )
        connection.response.create()
        text = ""
        for event in connection:
            text += event.delta if event.type == "response.output_text.delta" else ""
            if event.type == "response.done":
                break
    assert text == alone(server.model, SOURCE)
    assert [model.id for model in client.models.list()] == [server.model]


def test_sessions_at_once_write_what_each_writes_alone(server: Running, run: RunIt) -> None:
    sources = [SOURCE, "one two three", "the window the window", "dog", "a hat in a window sleeps"]

    async def one(source: str) -> str:
        async with server.client().realtime.connect() as connection:
            await say(connection, source)
            return text_of(await until(connection, "response.done"))

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(one, sources))  # one more than there are lanes

    assert run(all_of_them()) == [alone(server.model, source) for source in sources]
