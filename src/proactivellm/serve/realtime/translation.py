"""A session of OpenAI's interpreter protocol: audio in, its translation as text, append-only.

The session translates what comes until it is closed; there is nothing to commit. As an extension,
it takes text in place of audio (`session.input_text_buffer.append`), of which each line is a source
of its own: that is how a model that reads text serves this protocol.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from proactivellm.serve.audio import RATE, Format, frames, read_format
from proactivellm.serve.errors import RequestError, engine_failed, not_supported, unknown_event
from proactivellm.serve.models import Models, Served
from proactivellm.serve.realtime.audio_events import AudioAppend, SpeechFields, SpeechUpdate
from proactivellm.serve.realtime.client_events import TextAppend, parse
from proactivellm.serve.realtime.extension import DECIDED, Silence, decision, position
from proactivellm.serve.realtime.hearing_config import listening
from proactivellm.serve.realtime.session_config import SessionConfig
from proactivellm.serve.realtime.turn import Turn
from proactivellm.serve.sessions import Dialogue, Session
from proactivellm.serve.settings import Settings
from proactivellm.stream import Hearing, StreamEvent

_MOST_WAITING = 64  # lines that are not translated yet

Handler = Callable[["Translation", dict[str, Any]], Awaitable[None]]


class Translation(Dialogue):
    """What a session that translates does."""

    def __init__(
        self, session: Session, config: SessionConfig, models: Models, settings: Settings
    ) -> None:
        self._session, self._send = session, session.send
        self._config, self._models, self._settings = config, models, settings
        self._expires_at = int(time.time() + settings.session_s)
        self._language: str | None = None
        self._transcriber: Served | None = None
        self._turn: Turn | None = None  # takes what comes next
        self._heard: Turn | None = None  # of the same audio, on its way to a transcript
        self._running: dict[asyncio.Task[None], Turn] = {}
        self._one_by_one = {name: asyncio.Lock() for name in ("input", "output")}
        self._wrote = {"input": False, "output": False}
        self._began_s: float | None = None  # when the first text came
        self._ending: asyncio.Task[None] | None = None  # once the client has closed it

    @property
    def busy(self) -> bool:
        return bool(self._running)

    @property
    def taken(self) -> float:
        """Seconds of all audio, or characters of the line that still arrives."""
        return 0.0 if self._turn is None else self._turn.size

    async def begin(self) -> None:
        await self._send({"type": "session.created", "session": self._session_object()})

    async def handle(self, event: dict[str, Any]) -> None:
        kind = str(event["type"])
        if kind not in _HANDLERS:
            raise unknown_event(kind, "a session that translates")
        if self._ending is not None:
            raise RequestError("the session is closed", code="session_closed")
        await _HANDLERS[kind](self, event)

    async def end(self) -> None:
        for turn in [*self._running.values()]:
            with suppress(RuntimeError):  # its engine has died
                await turn.cancel()
        if self._running:  # which are not cut short with who waits for them
            await asyncio.wait([*self._running])

    async def _update(self, event: dict[str, Any]) -> None:
        fields = parse(SpeechUpdate, event).session
        config = self._config
        if fields.proactivellm is not None:
            config = config.extended(fields.proactivellm, "session.proactivellm")
        transcriber = self._new_transcriber(fields)
        self._config, self._transcriber = config, transcriber
        self._language = fields.audio.output.language or self._language
        await self._send({"type": "session.updated", "session": self._session_object()})

    def _new_transcriber(self, fields: SpeechFields) -> Served | None:
        """The model that writes the source down; RequestError if a value cannot be had."""
        for name, value in (("type", "translation"), ("model", self._config.served.name)):
            if getattr(fields, name) not in (None, value):
                raise not_supported(f"a change of the {name} of a session", f"session.{name}")
        asked, param = fields.audio.input, "session.audio.input"
        if asked.noise_reduction is not None:
            raise not_supported("noise reduction", f"{param}.noise_reduction")
        if asked.format and read_format(asked.format, f"{param}.format") != Format():
            raise not_supported(f"a format other than PCM16 of {RATE} Hz", f"{param}.format")
        if "transcription" not in asked.model_fields_set:
            return self._transcriber
        if asked.transcription is None:
            return None
        if not self._config.served.listens:
            return self._config.served  # the source is text as it comes
        return listening(self._models, asked.transcription.model, f"{param}.transcription.model")

    async def _append_audio(self, event: dict[str, Any]) -> None:
        served = self._config.served
        if not served.listens:
            raise not_supported(f"{served.name} reads text; audio", "type")
        samples = Format().decode(parse(AudioAppend, event).audio)
        if not len(samples):
            return
        if self._turn is None:
            self._turn = self._begin(served, "output", self._new_hearing(served))
            if (other := self._transcriber) is not None:
                self._heard = self._begin(other, "input", self._new_hearing(other))
        blocks, seconds = [*frames(samples, RATE)], len(samples) / RATE
        self._turn.push_all(blocks, seconds)
        if self._heard is not None:
            self._heard.push_all(blocks, seconds)

    async def _append_text(self, event: dict[str, Any]) -> None:
        served = self._config.served
        if served.listens:
            raise not_supported(f"{served.name} listens; text", "type")
        if self._began_s is None:
            self._began_s = time.monotonic()
        text = parse(TextAppend, event).text
        lines = text.splitlines(keepends=True)
        if len(self._running) + len(lines) > _MOST_WAITING:
            raise RequestError(
                f"{len(self._running)} lines wait to be translated; send this again later",
                code="input_buffer_full",
                type="rate_limit_exceeded",
                retry_after_s=1.0,
            )
        for line in lines:
            if line.strip() or self._turn is not None:
                if self._turn is None:
                    self._turn = self._begin(served, "output")
                self._turn.push(line.rstrip("\r\n"), len(line))
            if line.endswith("\n") and self._turn is not None:
                self._turn.close()
                self._turn = None
        if self._transcriber is not None and text:
            await self._tell_delta("input", text, {})

    async def _close(self, event: dict[str, Any]) -> None:
        for turn in (self._turn, self._heard):
            if turn is not None:
                turn.close()
        self._ending = asyncio.get_running_loop().create_task(self._end_session())

    async def _end_session(self) -> None:
        if self._running:
            await asyncio.wait([*self._running])
        await self._send({"type": "session.closed"})
        self._session.finish()

    def _new_hearing(self, served: Served) -> Hearing:
        return Hearing(served.model, RATE)

    def _begin(self, served: Served, side: str, hearing: Hearing | None = None) -> Turn:
        config = self._config if side == "output" else SessionConfig.of(served)
        turn = Turn(config, self._settings, hearing)
        task = asyncio.get_running_loop().create_task(self._run(turn, side))
        self._running[task] = turn
        task.add_done_callback(self._running.pop)
        return turn

    async def _run(self, turn: Turn, side: str) -> None:
        """Tells what becomes of a source, after those before it."""
        silence, begins = Silence(), True
        async with self._one_by_one[side]:
            try:
                async for event in turn.events():
                    begins = await self._tell(event, side, begins)
                    if (quiet := silence.of(event)) is not None and side == "output":
                        await self._send(quiet)
            except RequestError as error:
                await self._fail(error)
            except Exception as error:
                await self._fail(engine_failed(error, "what follows is translated again"))
            finally:
                if self._turn is turn:
                    self._turn = None
                if self._heard is turn:
                    self._heard = None

    async def _tell(self, event: StreamEvent, side: str, begins: bool) -> bool:
        """Tell of an event; whether its source has written nothing yet."""
        if self._config.decisions and side == "output" and event.kind in DECIDED:
            await self._send(decision(event))
        if event.kind != "WRITE":
            return begins
        # A source of its own begins on a line of its own.
        lead = "\n" if begins and self._wrote[side] else ""
        text = event.text.lstrip() if begins else event.text
        await self._tell_delta(side, lead + text, position(event), event.media_s)
        return False

    async def _tell_delta(
        self, side: str, text: str, extension: dict[str, Any], media_s: float | None = None
    ) -> None:
        """`media_s` is None of a text, whose time runs from its first piece."""
        self._wrote[side] = True
        if media_s is None:
            now_s = time.monotonic()
            media_s = now_s - (self._began_s or now_s)
        more = {
            "delta": text,
            "elapsed_ms": round(1000 * media_s),
        }
        told = {"type": f"session.{side}_transcript.delta", **more}
        await self._send({**told, "proactivellm": extension} if extension else told)

    async def _fail(self, error: RequestError) -> None:
        await self._send({"type": "error", "error": error.as_dict()})

    def _session_object(self) -> dict[str, Any]:
        common = self._config.as_dict(self._session.id, self._settings.resume_s)
        transcriber = self._transcriber
        transcription = None if transcriber is None else {"model": transcriber.name}
        return {
            "type": "translation",
            "id": self._session.id,
            "model": self._config.served.name,
            "expires_at": self._expires_at,
            "audio": {
                "input": {"noise_reduction": None, "transcription": transcription},
                "output": {"language": self._language},
            },
            "proactivellm": common["proactivellm"],
        }


_HANDLERS: dict[str, Handler] = {
    "session.update": Translation._update,
    "session.input_audio_buffer.append": Translation._append_audio,
    "session.input_text_buffer.append": Translation._append_text,
    "session.close": Translation._close,
}
