"""`POST /v1/translations`: one text in, its target as server-sent events while it is written.

The events are named as those of OpenAI's streamed transcriptions.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import Field

from proactivellm.serve.errors import RequestError, engine_failed
from proactivellm.serve.models import Served
from proactivellm.serve.realtime.client_events import Extension, parse
from proactivellm.serve.realtime.extension import DECIDED, decision, position
from proactivellm.serve.realtime.session_config import SessionConfig
from proactivellm.serve.realtime.turn import Turn
from proactivellm.serve.settings import Settings
from proactivellm.stream import StreamEvent

router = APIRouter()


class Translation(Extension):
    """The body: a text, and how it is to be streamed."""

    text: Annotated[str, Field(min_length=1)]
    model: str | None = None
    stream: bool = True  # or one JSON object, when all is written


@router.post("/v1/translations")
async def translate(request: Request) -> Response:
    """Streams one text, as it would be if it arrived word by word at once."""
    state = request.app.state
    settings: Settings = state.settings
    try:
        asked = parse(Translation, await _body(request, settings.message_bytes))
        if state.sessions.draining:
            raise RequestError("the server ends", code="draining", type="server_error")
        served = state.models.get(asked.model)
        if served.listens:
            raise RequestError(
                f"{served.name} reads {served.reads}, and no text", code="not_supported"
            )
        config = SessionConfig.of(served).extended(asked, "body")
        turn = Turn(config, settings)
        turn.push(asked.text, len(asked.text))
        turn.close()
        events = _events(served, turn, config)
        watching = asyncio.create_task(cancel_when_gone(request, turn))
        try:
            # The first one tells whether there is a lane: an error has a status of its own then.
            last = await anext(events)
            if not asked.stream:
                async for event in events:
                    last = event
        finally:
            watching.cancel()
        if asked.stream:  # which watches over its client itself
            return StreamingResponse(_lines(last, events), media_type="text/event-stream")
        return JSONResponse({name: last[name] for name in ("text", "usage", "proactivellm")})
    except RequestError as error:
        state.metrics.refused(error.code)
        return _refusal(error)


async def cancel_when_gone(request: Request, turn: Turn) -> None:
    """Cancels a turn whose client has left; for an answer that is sent when all is written."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    await turn.cancel()


async def _events(
    served: Served, turn: Turn, config: SessionConfig
) -> AsyncIterator[dict[str, Any]]:
    """Deltas, and what is done at last; RequestError if it fails."""
    text, thoughts = "", list[str]()
    try:
        async for event in turn.events():
            if config.decisions and event.kind in DECIDED:
                yield decision(event)
            if event.kind == "THINK":
                for told in _of_thought(event, thoughts):
                    yield told
            elif event.kind == "WRITE":
                text += event.text
                yield {
                    "type": "translation.text.delta",
                    "delta": event.text,
                    "proactivellm": position(event),
                }
    except RequestError:
        raise
    except Exception as error:
        raise engine_failed(error, "send the text again") from None
    ending = None if turn.ending is None else turn.ending.value
    extension: dict[str, Any] = {
        "model": served.name,
        "policy": config.policy.spec,
        "ending": ending,
    }
    if turn.thinks:
        extension["thoughts"] = thoughts
    done = {"type": "translation.text.done", "text": text, "usage": turn.tokens.usage}
    yield {**done, "proactivellm": extension}


def _of_thought(event: StreamEvent, thoughts: list[str]) -> Iterator[dict[str, Any]]:
    """What is told of new text of a thought, which the last of `thoughts` is or becomes."""
    index = event.thought or 0
    if index == len(thoughts):
        thoughts.append("")
    thoughts[-1] += event.text
    where = {"index": index, "proactivellm": position(event)}
    kind = "translation.reasoning_text"
    if event.text:
        yield {"type": f"{kind}.delta", "delta": event.text, **where}
    if event.closes:
        yield {"type": f"{kind}.done", "text": thoughts[-1], **where}


async def _lines(
    first: dict[str, Any], events: AsyncIterator[dict[str, Any]]
) -> AsyncIterator[str]:
    try:
        yield _line(first)
        async for event in events:
            yield _line(event)
    except RequestError as error:
        yield _line({"type": "error", "error": error.as_dict()})


def _line(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


async def _body(request: Request, most: int) -> dict[str, Any]:
    """The JSON object of a request, of so many bytes at most."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise RequestError(f"a body may have {most} bytes", code="body_too_large")
    try:
        value = json.loads(body.decode())
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        raise RequestError("the body is not JSON of Unicode", code="invalid_json") from None
    if not isinstance(value, dict):
        raise RequestError("the body is no object", code="invalid_json")
    return value


def _refusal(error: RequestError) -> JSONResponse:
    codes = {
        "model_not_found": 404,
        "body_too_large": 413,
        "draining": 503,
        "engine_failed": 500,
        "too_many_streams": 429,
    }
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = f"{error.retry_after_s:.0f}"
    return JSONResponse({"error": error.as_dict()}, codes.get(error.code, 400), headers=headers)
