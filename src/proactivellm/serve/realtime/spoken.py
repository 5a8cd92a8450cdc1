"""A session that hears: audio in, responses of text out.

With `turn_detection`, audio is answered while it arrives, and a response ends at each pause;
without it, a response is made of what was committed. `session.update` of the type `transcription`
makes a session that transcribes of it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from proactivellm.serve.audio import frames
from proactivellm.serve.errors import RequestError, not_supported
from proactivellm.serve.models import Models
from proactivellm.serve.realtime.audio_events import AudioAppend, SpeechUpdate
from proactivellm.serve.realtime.client_events import ResponseCreate, SessionUpdate, parse
from proactivellm.serve.realtime.conversation import Conversation
from proactivellm.serve.realtime.hearing_config import HearingConfig
from proactivellm.serve.realtime.items import audio_item, new_item
from proactivellm.serve.realtime.response import Response
from proactivellm.serve.realtime.session_config import check_modalities
from proactivellm.serve.realtime.speech import Speech
from proactivellm.serve.realtime.transcription import Transcription
from proactivellm.serve.realtime.turn import Tokens, Turn
from proactivellm.serve.sessions import Session
from proactivellm.serve.settings import Settings
from proactivellm.session.events import Ending
from proactivellm.stream import Hearing, StreamEvent

_TEXT = ("input_text_buffer.append", "input_text_buffer.commit", "input_text_buffer.clear")


@dataclass(eq=False)
class _Live:
    """Audio that is answered while it arrives."""

    turn: Turn
    speech: Speech
    committed: bool = False  # by the client

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Of its turn; where speech begins and ends is told."""
        async with aclosing(self.turn.events()) as events:
            async for event in events:
                if not await self.speech.tell(event, self.committed):
                    yield event


class _Part:
    """What of a turn is answered by one response: up to the next pause."""

    thinks = beside = False

    def __init__(
        self, turn: Turn, first: StreamEvent, rest: AsyncGenerator[StreamEvent, None]
    ) -> None:
        self.ending: Ending | None = None
        self.tokens, self.forwards = Tokens(), 0
        self._turn, self._first, self._rest = turn, first, rest

    async def cancel(self) -> None:
        await self._turn.cancel()

    async def events(self) -> AsyncIterator[StreamEvent]:
        event: StreamEvent | None = self._first
        while event is not None:
            self.ending = event.ending
            if event.kind != "END":  # after it, the turn counts anew
                self.tokens = Tokens(self._turn.tokens.read, event.tokens)
                self.forwards = self._turn.forwards
            yield event
            event = None if event.kind == "END" else await anext(self._rest, None)


class Spoken(Conversation):
    """What a session of a model that listens does."""

    def __init__(
        self, session: Session, config: HearingConfig, models: Models, settings: Settings
    ) -> None:
        super().__init__(session, config.common, models, settings)
        self._hears = config
        self._live: _Live | None = None  # audio that is answered while it arrives
        self._heard_s = 0.0  # of audio that was answered while it arrived
        self._buffer: list[np.ndarray] = []  # audio that waits for its commit
        self._committed: list[np.ndarray] = []  # and for its response
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """As of any dialogue; audio that arrives is being answered."""
        return bool(self._tasks) or super().busy

    @property
    def taken(self) -> float:
        """Seconds of the audio that still arrives."""
        if self._live is not None:
            return self._live.turn.size
        return sum(map(len, self._buffer)) / self._hears.rate

    async def handle(self, event: dict[str, Any]) -> None:
        """As any dialogue."""
        kind = str(event["type"])
        if kind in _TEXT or kind == "conversation.item.create":
            raise not_supported(f"{kind}: {self._hears.served.name} listens; text", "type")
        handler = {
            "session.update": self._update_hearing,
            "response.create": self._respond_to_audio,
            "input_audio_buffer.append": self._append_audio,
            "input_audio_buffer.commit": self._commit_audio,
            "input_audio_buffer.clear": self._clear_audio,
        }.get(kind, super().handle)
        await handler(event)

    async def end(self) -> None:
        if self._live is not None:
            with suppress(RuntimeError):  # its engine has died
                await self._live.turn.cancel()
        await super().end()
        if self._tasks:
            await asyncio.wait([*self._tasks])

    async def _update_hearing(self, event: dict[str, Any]) -> None:
        fields = parse(SpeechUpdate, event).session
        waits = self._live is not None or self._buffer or self._committed or self._responses
        if fields.type == "transcription" and not waits:
            other = Transcription(self._session, self._hears, self._models, self._settings)
            await other.handle(event)
            self._session.dialogue = other
            return
        if fields.model not in (None, self._hears.served.name):
            raise not_supported("another model in a session that hears", "session.model")
        if fields.audio.input.transcription is not None:
            raise not_supported(
                "a transcript beside the response", "session.audio.input.transcription"
            )
        hears = self._hears.updated(fields, self._models, "realtime")
        before = self._hears
        if waits and (hears.format, hears.detects_turns) != (before.format, before.detects_turns):
            raise RequestError(
                "there is audio that was not answered: how it comes cannot change now",
                code="invalid_value",
                param="session.audio.input",
            )
        config = self._config.updated(parse(SessionUpdate, event).session, self._models)
        ignored = tuple(name for name in config.ignored if name != "audio")
        self._hears, self._config = hears, replace(config, ignored=ignored)
        await self._send({"type": "session.updated", "session": self._session_object()})

    async def _append_audio(self, event: dict[str, Any]) -> None:
        samples = self._hears.format.decode(parse(AudioAppend, event).audio)
        rate = self._hears.rate
        if not len(samples):
            return
        if not self._hears.detects_turns:
            kept = sum(map(len, [*self._buffer, *self._committed, samples]))
            if kept > rate * self._settings.waiting_s:
                raise RequestError(
                    f"{self._settings.waiting_s:g} s of audio may wait for a response",
                    code="input_buffer_full",
                )
            self._buffer.append(samples)
            return
        if self._live is None:
            self._live = _Live(self._new_turn(), Speech(self._send, self._heard_s))
            task = asyncio.get_running_loop().create_task(self._answer(self._live))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._live.turn.push_all([*frames(samples, rate)], len(samples) / rate)
        self._heard_s += len(samples) / rate

    async def _commit_audio(self, event: dict[str, Any]) -> None:
        if self._live is None and not self._buffer:
            raise RequestError(
                "no audio was appended since the last commit",
                code="input_audio_buffer_commit_empty",
            )
        if self._live is not None:
            live, self._live = self._live, None
            live.committed = True
            live.turn.close()
            await self._tell_committed(live.speech.next_item())
        else:
            self._committed += self._buffer
            self._buffer = []
            await self._tell_committed(new_item())

    async def _clear_audio(self, event: dict[str, Any]) -> None:
        self._buffer = []
        if self._live is not None:
            live, self._live = self._live, None
            await live.turn.cancel()
        await self._send({"type": "input_audio_buffer.cleared"})

    async def _respond_to_audio(self, event: dict[str, Any]) -> None:
        asked = parse(ResponseCreate, event).response
        check_modalities(asked.output_modalities, "response.output_modalities")
        if asked.input is not None:
            raise not_supported("input in place of the buffer", "response.input")
        if not self._committed:
            raise RequestError(
                "there is no audio to respond to: append and commit some first", code="no_input"
            )
        config = self._config
        if asked.proactivellm is not None:
            config = config.extended(asked.proactivellm, "response.proactivellm")
        turn, rate = self._new_turn(), self._hears.rate
        samples = np.concatenate(self._committed)
        turn.push_all([*frames(samples, rate)], len(samples) / rate)
        turn.close()
        wish = self._wish(config, False, asked.metadata, asked.max_output_tokens)
        self._respond(turn, wish)
        self._committed = []

    def _new_turn(self) -> Turn:
        served = self._hears.served
        detects = self._hears.detects_turns
        hearing = Hearing(served.model, self._hears.rate, tells_turns=detects)
        return Turn(self._config, self._settings, hearing)

    async def _answer(self, live: "_Live") -> None:
        """A response for each turn that the gate hears, until the audio has ended."""
        events = live.events()
        try:
            async for first in events:
                part = _Part(live.turn, first, events)
                response = Response(part, self._wish(self._config), self._send)
                task = asyncio.current_task()
                assert task is not None
                self._responses[response.id] = response, task
                await self._run(response)
                if not live.committed:
                    await self._tell_committed(live.speech.next_item())
        except RequestError as error:
            await self._send({"type": "error", "error": error.as_dict()})
        finally:
            if self._live is live:
                self._live = None

    async def _tell_committed(self, item_id: str) -> None:
        item = audio_item(item_id)
        previous = self._items.add(item)
        where = {"item_id": item["id"], "previous_item_id": previous}
        await self._send({"type": "input_audio_buffer.committed", **where})
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self._send({"type": kind, "previous_item_id": previous, "item": item})

    def _session_object(self) -> dict[str, Any]:
        told = super()._session_object()
        heard = self._hears.as_dict(self._session.id, self._settings.resume_s, 0)
        return {**told, "audio": heard["audio"]}
