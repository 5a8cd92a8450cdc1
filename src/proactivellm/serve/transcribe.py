"""`POST /v1/audio/transcriptions`: a recording in a form, its text whole or as it is written."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from proactivellm.serve.errors import RequestError, engine_failed, not_supported
from proactivellm.serve.realtime.client_events import Extension
from proactivellm.serve.realtime.extension import position
from proactivellm.serve.realtime.hearing_config import listening
from proactivellm.serve.realtime.session_config import SessionConfig
from proactivellm.serve.realtime.turn import Turn
from proactivellm.serve.translate import cancel_when_gone
from proactivellm.serve.uploads import Upload
from proactivellm.stream import Hearing, StreamEvent
from proactivellm.stream.timed import Timeline, srt, verbose, vtt

router = APIRouter()

_SUBTITLES = {"srt": srt, "vtt": vtt}
_TIMED = ("verbose_json", *_SUBTITLES)
_FORMATS = ("json", "text", *_TIMED)
_GRANULARITIES = ("segment", "word")
_STATUS = {"rate_limit_exceeded": 429, "server_error": 500}  # of types of errors; others are 400


@router.post("/v1/audio/transcriptions")
async def transcribe(request: Request) -> Response:
    """The fields of OpenAI's: file, model, response_format, timestamp_granularities[], stream.

    As an extension, `policy` or `delay`, as in a session. Without `stream`, the answer comes when
    all is written.
    """
    state = request.app.state
    try:
        if state.sessions.draining:
            raise RequestError("the server ends", code="draining", type="server_error")
        form = await _form(request)
        recorded = await _begin(request, form)
        if _streams(form):
            return StreamingResponse(recorded.sent(), media_type="text/event-stream")
        watching = asyncio.create_task(cancel_when_gone(request, recorded.turn))
        try:
            events = [event async for event in recorded.events()]
        finally:
            watching.cancel()
    except RequestError as error:
        state.metrics.refused(error.code)
        return JSONResponse({"error": error.as_dict()}, _STATUS.get(error.type, 400))
    return _told(form, recorded, events)


def _told(form: FormData, recorded: "_Recorded", events: Sequence[StreamEvent]) -> Response:
    """What was written, in the format that is asked for."""
    text = "".join(event.text for event in events if event.kind == "WRITE").strip()
    wanted = str(form.get("response_format", "json"))
    if wanted == "text":
        return PlainTextResponse(text + "\n")
    told: dict[str, Any] = {"text": text, "usage": recorded.usage}
    if wanted == "json":
        return JSONResponse(told)
    timeline = Timeline()
    for event in events:
        timeline.add(event)
    if wanted in _SUBTITLES:
        return PlainTextResponse(_SUBTITLES[wanted](timeline))
    granularities = form.getlist("timestamp_granularities[]") or ["segment"]
    told |= {"task": "transcribe", "duration": recorded.usage["seconds"]}
    told["language"] = str(form.get("language") or "und")  # ISO 639: undetermined
    return JSONResponse(told | verbose(timeline, granularities, recorded.encode))


def _streams(form: FormData) -> bool:
    return str(form.get("stream", "")).lower() in ("1", "true")


async def _form(request: Request) -> FormData:
    most = request.app.state.settings.upload_bytes
    length = request.headers.get("content-length", "")
    if not length.isascii() or not length.isdigit() or int(length) > most:
        raise RequestError(
            f"a request says its length, and has at most {most} bytes", code="input_too_long"
        )
    try:
        form = await request.form(max_files=1, max_fields=32)
    except HTTPException as error:
        raise RequestError(str(error.detail), code="invalid_form") from None
    wanted = form.get("response_format", "json")
    if wanted not in _FORMATS:
        raise not_supported(f"the format {str(wanted)[:40]!r}", "response_format")
    if wanted in _TIMED and _streams(form):
        raise not_supported(f"{wanted}, streamed", "response_format")
    if "include[]" in form:
        raise not_supported(f"include: {str(form['include[]'])[:40]}", "include")
    param = "timestamp_granularities"
    for granularity in form.getlist(f"{param}[]"):
        if granularity not in _GRANULARITIES or wanted != "verbose_json":
            raise not_supported(f"{param}: {str(granularity)[:40]} in {wanted}", param)
    return form


async def _begin(request: Request, form: FormData) -> "_Recorded":
    state, file = request.app.state, form.get("file")
    if not isinstance(file, UploadFile):
        raise RequestError("give a recording", code="missing_file", param="file")
    named = form.get("model")
    served = listening(state.models, named if isinstance(named, str) else None)
    asked = {name: form[name] for name in ("policy", "delay") if name in form}
    try:
        extension = Extension.model_validate(asked)
    except ValueError:
        raise RequestError("no such policy or delay", code="invalid_value", param="delay") from None
    config = SessionConfig.of(served).extended(extension, "proactivellm")
    content, name = await file.read(), file.filename or "the file"
    upload = await asyncio.to_thread(Upload, content, name, state.settings.turn_s)
    tells_turns = form.get("response_format") in _TIMED
    hearing = Hearing(served.model, upload.rate, tells_turns=tells_turns)
    turn = Turn(config, state.settings, hearing)
    return _Recorded(turn, upload, served.model.tokenizer)


class _Recorded:
    """A recording on its way into its turn, as fast as that takes it."""

    def __init__(self, turn: Turn, upload: Upload, tokenizer: Any) -> None:
        self.turn, self._upload = turn, upload
        self._refused: RequestError | None = None  # why it is heard no further
        self.encode = partial(tokenizer.encode, add_special_tokens=False)

    @property
    def usage(self) -> dict[str, Any]:
        """What was heard."""
        return {"type": "duration", "seconds": round(self.turn.size, 3)}

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """What happens, as it happens; RequestError if it cannot go on."""
        feeding = asyncio.create_task(self._feed())
        try:
            async with aclosing(self.turn.events()) as events:
                async for event in events:
                    yield event
            if self._refused is not None:
                raise self._refused
        except RequestError:
            raise
        except Exception as error:
            raise engine_failed(error, "send the recording again") from None
        finally:
            feeding.cancel()
            self._upload.close()

    async def sent(self) -> AsyncIterator[str]:
        """The same as server-sent events."""
        text = ""
        try:
            async with aclosing(self.events()) as events:
                async for event in events:
                    if event.kind != "WRITE":
                        continue
                    delta = event.text if text else event.text.lstrip()
                    text += delta
                    told = {"type": "transcript.text.delta", "delta": delta}
                    yield _line({**told, "proactivellm": position(event)})
            told = {"type": "transcript.text.done", "text": text}
            yield _line({**told, "proactivellm": self.usage})
        except RequestError as error:
            yield _line({"type": "error", "error": error.as_dict()})

    async def _feed(self) -> None:
        try:
            async for block in self._upload.blocks():
                await self.turn.room()
                self.turn.push(block, len(block) / self._upload.rate)
        except RequestError as error:
            self._refused = error
            await self.turn.cancel()
        self.turn.close()


def _line(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event)}\n\n"
