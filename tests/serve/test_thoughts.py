"""A model that thinks, behind the server: its thoughts are items and events of their own."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from openai.types.responses import (
    ResponseReasoningItem,
    ResponseReasoningTextDeltaEvent,
    ResponseReasoningTextDoneEvent,
)
from tests.serve.conftest import KEY, Running, running
from tests.serve.test_realtime import text_of, until
from tests.serve.test_rest import translate

from proactivellm.cli import main
from proactivellm.client import Client, Delta, ServerError
from proactivellm.modality.loading import load
from proactivellm.policy.fixed import WaitK
from proactivellm.serve.settings import Settings
from proactivellm.session.limits import Limits
from proactivellm.stream import Job, run_streams

SOURCE = "The dog sleeps. The cat watches it. A man stands on a ladder."
QUESTION = "Who sleeps?"
RunIt = Callable[..., Any]


@pytest.fixture(scope="module")
def thinking(thinker: str, model: str) -> Iterator[Running]:
    """A server with it, and with a model that does not think."""
    settings = Settings(models=(thinker, model), api_keys=(KEY,), thought_tokens=4)
    with running(settings) as it:
        yield it


@pytest.fixture(scope="module")
def alone(thinker: str) -> Any:
    """What it thinks and answers without a server."""
    limits = Limits(thought_tokens=4, depth=2)
    job = Job(index=0, source=f"{QUESTION} {SOURCE}", num_asked=len(QUESTION.split()))
    (instance,) = run_streams(load(thinker), WaitK(k=1), [job], limits=limits)
    return instance


async def stream(connection: Any, extension: dict[str, Any], **session: Any) -> list[Any]:
    """Events of a source that streams."""
    await connection.session.update(
        session={"type": "realtime", "proactivellm": extension, **session}
    )
    for start in range(0, len(SOURCE), 9):
        piece = SOURCE[start : start + 9]
        await connection.send({"type": "input_text_buffer.append", "text": piece})
    early = await until(connection, "response.reasoning_text.delta")
    await connection.send({"type": "input_text_buffer.commit"})
    return early + await until(connection, "response.done")


def test_thoughts_are_apart_from_the_answer(thinking: Running, run: RunIt, alone: Any) -> None:
    async def talk() -> list[Any]:
        async with thinking.client().realtime.connect(model=thinking.model) as connection:
            asked = {"question": QUESTION, "decisions": True}
            return await stream(connection, asked, reasoning={"effort": "medium"})

    events = run(talk())
    kinds = [event.type for event in events]
    first, committed = (
        kinds.index(k) for k in ("response.reasoning_text.delta", "input_text_buffer.committed")
    )
    assert first < committed, "it thinks while it reads"
    answer = "response.output_text.delta"
    assert text_of(events) == alone.prediction != ""
    thoughts = [thought.text for thought in alone.thoughts]
    response = events[-1].response.to_dict(warnings=False)
    reasoning, message = response["output"]
    assert [part["text"] for part in reasoning["content"]] == thoughts and any(thoughts)
    assert message["content"][0]["text"] == alone.prediction
    ResponseReasoningItem.model_validate(reasoning, strict=True)
    told: dict[int, str] = {}
    for event in events:
        numbered = {**event.to_dict(warnings=False), "sequence_number": event.proactivellm_seq}
        if event.type == "response.reasoning_text.delta":
            delta = ResponseReasoningTextDeltaEvent.model_validate(numbered)
            told[delta.content_index] = told.get(delta.content_index, "") + delta.delta
            assert (delta.item_id, delta.output_index) == (reasoning["id"], 0)
        elif event.type == "response.reasoning_text.done":
            done = ResponseReasoningTextDoneEvent.model_validate(numbered)
            assert done.text == told.get(done.content_index, "") == thoughts[done.content_index]
        elif event.type == answer:
            assert (event.item_id, event.output_index) == (message["id"], 1)
        elif event.type == "proactivellm.decision":
            assert event.action in ("READ", "WRITE")
    closed = [event for event in events if event.type == "response.reasoning_text.done"]
    seen = [event.proactivellm["source_units"] for event in closed]
    assert seen == [thought.units_read for thought in alone.thoughts]
    ends = [i for i, e in enumerate(events) if e.type == "response.output_item.done"]
    assert max(i for i, kind in enumerate(kinds) if "reasoning" in kind) < ends[0]
    assert ends[0] < kinds.index(answer)
    usage = response["usage"]
    counted = sum(thought.tokens for thought in alone.thoughts) + 1  # which opens the answer
    assert usage["output_token_details"]["reasoning_tokens"] == counted
    assert usage["output_tokens"] == counted + len(alone.token_delays)


def test_source_that_streams_keeps_its_question(thinking: Running, run: RunIt) -> None:
    async def talk() -> tuple[list[Any], Any, Any]:
        async with thinking.client().realtime.connect(model=thinking.model) as connection:
            await connection.recv()
            await connection.send({"type": "input_text_buffer.append", "text": "The dog sleeps. "})
            await until(connection, "response.reasoning_text.delta")
            errors = []
            changes = {"question": "Why?"}, {"depth": 1}, {"depth": 4}, {"policy": "entropy:1"}
            for change in changes:
                session = {"type": "realtime", "proactivellm": change}
                await connection.session.update(session=session)
                while (event := await connection.recv()).type != "error":
                    pass
                errors.append(event.error)
            same = {"question": ""}  # as there is none
            await connection.session.update(
                session={"type": "realtime", "instructions": "x", "proactivellm": same}
            )
            updated = (await until(connection, "session.updated"))[-1].session
            await connection.response.cancel()
            done = (await until(connection, "response.done"))[-1].response
            return errors, updated, done

    errors, updated, done = run(talk())
    assert [error.code for error in errors] == [
        *("source_has_begun", "source_has_begun", "invalid_value", "invalid_policy")
    ]
    assert updated.proactivellm["question"] == "" and updated.proactivellm["unit"] == "sentence"
    assert done.status == "cancelled"
    reasoning, message = done.to_dict(warnings=False)["output"]
    assert reasoning["status"] == "incomplete" and message["content"][0]["text"] == ""


def test_tokens_of_thoughts_count_as_output(thinking: Running, run: RunIt) -> None:
    async def talk() -> Any:
        async with thinking.client().realtime.connect(model=thinking.model) as connection:
            item = {"type": "input_text", "text": SOURCE}
            await connection.conversation.item.create(
                item={"type": "message", "role": "user", "content": [item]}
            )
            await connection.response.create(response={"max_output_tokens": 6})
            return (await until(connection, "response.done"))[-1].response.to_dict(warnings=False)

    response = run(talk())
    assert response["status_details"]["reason"] == "max_output_tokens"
    assert response["usage"]["output_tokens"] == 6
    assert response["output"][1]["content"][0]["text"] == ""


def test_text_in_a_request_has_its_thoughts_beside_it(thinking: Running, alone: Any) -> None:
    def count(name: str) -> float:
        headers = {"Authorization": f"Bearer {KEY}"}
        lines = httpx.get(f"{thinking.url}/metrics", headers=headers).text.splitlines()
        return sum(float(line.split(" ")[-1]) for line in lines if line.startswith(name))

    names = ("proactivellm_thoughts_total", "proactivellm_thought_tokens_total")
    before = [count(name) for name in names]
    asked = {"text": SOURCE, "question": QUESTION, "depth": 2}
    told = translate(thinking, **asked, stream=False).json()
    thoughts = [thought.text for thought in alone.thoughts]
    assert told["text"] == alone.prediction
    assert told["proactivellm"]["thoughts"] == thoughts
    tokens = told["usage"]["output_token_details"]["reasoning_tokens"]
    after = [count(name) for name in names]
    assert [new - old for new, old in zip(after, before, strict=True)] == [len(thoughts), tokens]
    lines = translate(thinking, **asked).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    done = [e for e in events if e["type"] == "translation.reasoning_text.done"]
    assert [event["text"] for event in done] == thoughts
    deltas = [e["delta"] for e in events if e["type"] == "translation.text.delta"]
    assert "".join(deltas) == alone.prediction


def test_what_a_thinker_and_others_cannot_do_is_told(
    thinking: Running, model: str, run: RunIt
) -> None:
    for asked in ({"question": "Who?"}, {"depth": 1}):
        refused = translate(thinking, text="x", model=model, **asked)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (400, "not_supported")
        assert error["param"] == f"body.{next(iter(asked))}"

    async def interpret(where: str) -> Any:
        url = f"{thinking.socket_url}{where}model={thinking.model}"
        headers = {"Authorization": f"Bearer {KEY}"}
        async with websockets.connect(url, additional_headers=headers) as socket:
            error = json.loads(await socket.recv())["error"]
            with pytest.raises(websockets.ConnectionClosedError):
                await socket.recv()
            return error["code"], error["param"]

    for where in ("/translations?", "?intent=transcription&"):
        assert run(interpret(where)) == ("not_supported", "model")
    refused = httpx.post(
        f"{thinking.url}/v1/audio/transcriptions",
        data={"model": thinking.model},
        files={"file": ("x.wav", b"x")},
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert refused.json()["error"]["code"] == "not_supported"


def test_our_client_tells_thoughts_where_they_are_wanted(
    thinking: Running, run: RunIt, alone: Any
) -> None:
    async def talk() -> list[list[Delta]]:
        how: dict[str, Any] = {"model": thinking.model, "key": KEY, "depth": 2}
        async with Client(thinking.url, question=QUESTION, **how) as client:
            turns = [client.stream(SOURCE, thoughts=wanted) for wanted in (True, False)]
            return [[delta async for delta in turn] for turn in turns]

    both, answer = run(talk())
    thoughts = [delta for delta in both if delta.thought is not None]
    assert both[len(thoughts) :] == [d for d in both if d.thought is None]  # the answer is last
    for deltas in (both[len(thoughts) :], answer):
        assert "".join(delta.text for delta in deltas) == alone.prediction != ""
        assert not any(delta.closes for delta in deltas)
    for number, thought in enumerate(alone.thoughts):
        *_, last = told = [delta for delta in thoughts if delta.thought == number]
        assert "".join(delta.text for delta in told) == thought.text
        assert [delta.closes for delta in told] == [False] * (len(told) - 1) + [True]
        assert last.source_units == thought.units_read and last.elapsed_ms > 0


def test_the_command_shows_thoughts_apart_from_the_answer(
    thinking: Running,
    alone: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "in.txt").write_text(f"{SOURCE}\n", encoding="utf-8")
    monkeypatch.setenv("PROACTIVELLM_API_KEY", KEY)
    asked = ["--model", thinking.model, "--question", QUESTION, "--depth", "2"]

    def client(*flags: str) -> tuple[str, list[str]]:
        with pytest.raises(SystemExit) as end:
            main(["client", "--url", thinking.url, "--input", str(tmp_path / "in.txt"), *flags])
        out, err = capsys.readouterr()
        assert end.value.code == 0, err
        return out, err.splitlines()

    out, err = client(*asked, "--thoughts")
    assert out == f"{alone.prediction}\n"
    seen = [re.fullmatch(r"\[thought (\d+): (\d+) read, [\d.]+ s\] (.+)", line) for line in err]
    assert [tuple(found.groups()) if found else None for found in seen] == [
        (str(i), str(thought.units_read), " ".join(thought.text.split()) or "(skip)")
        for i, thought in enumerate(alone.thoughts, 1)
    ]
    assert client(*asked) == (out, [])


def test_our_client_is_told_who_does_not_think(thinking: Running, model: str, run: RunIt) -> None:
    async def talk() -> None:
        async with Client(thinking.url, model=model, key=KEY, question=QUESTION):
            pass

    with pytest.raises(ServerError, match="think") as refused:
        run(talk())
    assert refused.value.code == "not_supported"
