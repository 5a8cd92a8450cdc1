"""`POST /v1/audio/transcriptions`: a recording in a form, its text whole or as it is written."""

import asyncio
import json
import tempfile
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from proactivellm.modality.speech.files import Recording
from proactivellm.serve.audio import FRAME_S
from proactivellm.serve.errors import RequestError, engine_failed, not_supported
from proactivellm.serve.realtime.client_events import Extension
from proactivellm.serve.realtime.extension import position
from proactivellm.serve.realtime.hearing_config import listening
from proactivellm.serve.realtime.session_config import SessionConfig
from proactivellm.serve.realtime.turn import Turn
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
    try:
        form = await _form(request)
        recorded = await _begin(request, form)
        if _streams(form):
            return StreamingResponse(recorded.sent(), media_type="text/event-stream")
        events = [event async for event in recorded.events()]
    except RequestError as error:
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
    content = await file.read()
    blocks, rate = await asyncio.to_thread(_decoded, content, file.filename or "the file")
    recorded_s = sum(map(len, blocks)) / rate
    if recorded_s > state.settings.turn_s:
        raise RequestError(
            f"a recording may last {state.settings.turn_s:g} s, this one has {recorded_s:.0f} s",
            code="input_too_long",
            param="file",
        )
    tells_turns = form.get("response_format") in _TIMED
    hearing = Hearing(served.model, rate, tells_turns=tells_turns)
    turn = Turn(config, state.settings, hearing)
    return _Recorded(turn, blocks, rate, served.model.tokenizer)


def _decoded(content: bytes, name: str) -> tuple[list[np.ndarray], int]:
    """The blocks of a recording, and their rate; RequestError if it is none."""
    with tempfile.NamedTemporaryFile(suffix=".audio") as copy:
        Path(copy.name).write_bytes(content)
        try:
            with Recording(copy.name) as recording, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a file that is cut: what is there is heard
                return list(recording.blocks(seconds=FRAME_S)), recording.rate
        except ValueError as error:
            said = str(error).replace(copy.name, name[:80])
            raise RequestError(said, code="invalid_audio", param="file") from None


class _Recorded:
    """A recording on its way into its turn, as fast as that takes it."""

    def __init__(self, turn: Turn, blocks: list[np.ndarray], rate: int, tokenizer: Any) -> None:
        self.turn, self._blocks, self._rate = turn, blocks, rate
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
        except RequestError:
            raise
        except Exception as error:
            raise engine_failed(error, "send the recording again") from None
        finally:
            feeding.cancel()

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
        for block in self._blocks:
            await self.turn.room()
            self.turn.push(block, len(block) / self._rate)
        self.turn.close()


def _line(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event)}\n\n"
