"""A session that transcribes: audio in, and its text while it still arrives.

Audio is heard from its first piece on, not from `input_audio_buffer.commit`. Where the model has a
gate and `turn_detection` is on, an item ends at each pause; without it, at each commit.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from proactivellm.serve.audio import frames
from proactivellm.serve.errors import RequestError, unknown_event
from proactivellm.serve.models import Models
from proactivellm.serve.realtime.audio_events import AudioAppend, SpeechUpdate
from proactivellm.serve.realtime.client_events import parse
from proactivellm.serve.realtime.hearing_config import HearingConfig
from proactivellm.serve.realtime.transcript import Transcript
from proactivellm.serve.realtime.turn import Turn
from proactivellm.serve.sessions import Dialogue, Session
from proactivellm.serve.settings import Settings
from proactivellm.stream import Hearing

_MOST_WAITING = 8  # buffers of one session that are not transcribed to their end

Handler = Callable[["Transcription", dict[str, Any]], Awaitable[None]]


class Transcription(Dialogue):
    """What a session that transcribes does."""

    def __init__(
        self, session: Session, config: HearingConfig, models: Models, settings: Settings
    ) -> None:
        self._session, self._send = session, session.send
        self._config, self._models, self._settings = config, models, settings
        self._expires_at = int(time.time() + settings.session_s)
        self._items: list[str] = []
        self._open: Transcript | None = None  # the buffer
        self._heard_s = 0.0  # of the buffers before it
        self._running: dict[Transcript, asyncio.Task[None]] = {}

    @property
    def busy(self) -> bool:
        return bool(self._running)

    @property
    def taken(self) -> float:
        """Seconds of the buffer."""
        return 0.0 if self._open is None else self._open.turn.size

    async def begin(self) -> None:
        await self._send({"type": "session.created", "session": self._session_object()})

    async def handle(self, event: dict[str, Any]) -> None:
        kind = str(event["type"])
        if kind not in _HANDLERS:
            raise unknown_event(kind, "a session that transcribes")
        await _HANDLERS[kind](self, event)

    async def end(self) -> None:
        self._open = None
        running = {**self._running}
        for transcript in running:
            await transcript.drop()
        if running:  # which are not cut short with who waits for them
            await asyncio.wait([*running.values()])

    async def _update(self, event: dict[str, Any]) -> None:
        config = self._config.updated(parse(SpeechUpdate, event).session, self._models)
        if self._open is not None and config.format != self._config.format:
            raise RequestError(
                "the buffer holds audio of another format: commit or clear it first",
                code="invalid_value",
                param="session.audio.input.format",
            )
        self._config = config
        await self._send({"type": "session.updated", "session": self._session_object()})

    async def _append(self, event: dict[str, Any]) -> None:
        samples = self._config.format.decode(parse(AudioAppend, event).audio)
        if self._open is None and len(samples):
            self._open = self._begin_buffer()
        if self._open is not None:
            rate = self._config.rate  # which does not change while the buffer is open
            self._open.turn.push_all([*frames(samples, rate)], len(samples) / rate)
            self._heard_s += len(samples) / rate

    async def _commit(self, event: dict[str, Any]) -> None:
        if self._open is None:
            raise RequestError(
                "no audio was appended since the last commit",
                code="input_audio_buffer_commit_empty",
            )
        transcript, self._open = self._open, None
        await transcript.commit()

    async def _clear(self, event: dict[str, Any]) -> None:
        if self._open is not None:
            transcript, self._open = self._open, None
            await transcript.drop()
        await self._send({"type": "input_audio_buffer.cleared"})

    def _begin_buffer(self) -> Transcript:
        if len(self._running) >= _MOST_WAITING:
            raise RequestError(
                f"{len(self._running)} buffers are not transcribed yet",
                code="too_many_buffers",
                type="rate_limit_exceeded",
                retry_after_s=1.0,
            )
        config = self._config
        detects = config.detects_turns
        hearing = Hearing(config.served.model, config.rate, tells_turns=detects)
        turn = Turn(config.common, self._settings, hearing)
        begins_s = self._heard_s if detects else None
        transcript = Transcript(turn, self._send, self._items, begins_s, config.common.decisions)
        self._running[transcript] = asyncio.get_running_loop().create_task(self._run(transcript))
        return transcript

    async def _run(self, transcript: Transcript) -> None:
        try:
            await transcript.run()
        finally:
            del self._running[transcript]
            if self._open is transcript:
                self._open = None

    def _session_object(self) -> dict[str, Any]:
        return self._config.as_dict(self._session.id, self._settings.resume_s, self._expires_at)


_HANDLERS: dict[str, Handler] = {
    "session.update": Transcription._update,
    "input_audio_buffer.append": Transcription._append,
    "input_audio_buffer.commit": Transcription._commit,
    "input_audio_buffer.clear": Transcription._clear,
}
