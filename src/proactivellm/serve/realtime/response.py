"""One response: the events of its life in OpenAI's order, while its turn is streamed.

The message of a model that thinks begins when its thoughts, an item of their own, are over.
"""

import logging
import math
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from proactivellm.serve.errors import RequestError, engine_failed
from proactivellm.serve.realtime.extension import DECIDED, Send, Silence, decision, position
from proactivellm.serve.realtime.reasoning import Reasoning
from proactivellm.serve.realtime.turn import Tokens
from proactivellm.session.events import Ending
from proactivellm.stream import StreamEvent


class Source(Protocol):
    """A turn, or a part of one that is answered by itself."""

    ending: Ending | None
    thinks: bool
    beside: bool

    @property
    def tokens(self) -> Tokens:
        """Those so far."""
        ...

    @property
    def forwards(self) -> int:
        """Of the model, that it took part in."""
        ...

    async def cancel(self) -> None:
        """End it."""
        ...

    def events(self) -> AsyncIterator[StreamEvent]:
        """See `Turn.events`."""
        ...


_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a client wants of a response."""

    conversation_id: str | None  # None: it is no part of the conversation
    metadata: dict[str, str] | None = None
    max_output_tokens: int | str | None = None  # None or "inf": as many as the model writes
    decisions: bool = False  # whether every READ and WRITE is told

    @property
    def most_tokens(self) -> float:
        """A number, at any rate."""
        most = self.max_output_tokens
        return most if isinstance(most, int) else math.inf


class Response:
    """A turn, told as a response with one message of text."""

    def __init__(self, turn: Source, wish: Wish, send: Send) -> None:
        self.id, self.item_id = (f"{kind}_{secrets.token_hex(10)}" for kind in ("resp", "item"))
        self.turn, self.wish, self._send = turn, wish, send
        self.text = ""
        self._reasoning = Reasoning(self.id, send)
        self._begun = False  # whether the message is
        self._status = "in_progress"
        self._details: dict[str, Any] | None = None
        self._cut = False  # whether it has as many tokens as the client wants

    @property
    def item(self) -> dict[str, Any]:
        """Its message, as far as it is written."""
        done = self._status == "completed"
        began = self._status != "in_progress"
        return {
            "id": self.item_id,
            "object": "realtime.item",
            "type": "message",
            "role": "assistant",
            "status": "completed" if done else "incomplete" if began else "in_progress",
            "content": [{"type": "output_text", "text": self.text}] if began else [],
        }

    async def run(self) -> None:
        """From `response.created` to `response.done`, whatever goes wrong."""
        await self._send({"type": "response.created", "response": self._object()})
        if not self.turn.thinks:
            await self._begin()
        silence = Silence()
        try:
            async for event in self.turn.events():
                await self._tell(event, silence)
            self._end(self.turn.ending)
        except RequestError as error:
            self._fail(error)
        except Exception as error:
            self._fail(
                engine_failed(error, "what was written stays, and a new response may be made")
            )
        tokens = self.turn.tokens
        told = {"status": self._status, "tokens": tokens.written, "thought_tokens": tokens.thought}
        _log.info("response_done", extra=told)
        await self._finish()

    async def _tell(self, event: StreamEvent, silence: Silence) -> None:
        if self._cut or event.tokens + event.thought_tokens > self.wish.most_tokens:
            if not self._cut:
                self._cut = True
                await self.turn.cancel()
            return
        if self.wish.decisions and event.kind in DECIDED:
            await self._send({**decision(event), "response_id": self.id})
        if event.kind == "THINK":
            await self._reasoning.tell(event)
        elif event.kind == "WRITE":
            await self._begin()
            self.text += event.text
            told = {"delta": event.text, "proactivellm": position(event)}
            await self._send(self._of_part("response.output_text.delta", **told))
        if (quiet := silence.of(event)) is not None:
            await self._send({**quiet, "response_id": self.id})

    def _end(self, ending: Ending | None) -> None:
        if ending in (Ending.END_TOKEN, Ending.EMPTY_SOURCE):
            self._status = "completed"
        elif ending == Ending.LENGTH_LIMIT or self._cut:
            self._status = "incomplete"
            self._details = {"type": "incomplete", "reason": "max_output_tokens"}
        else:
            self._status = "cancelled"
            self._details = {"type": "cancelled", "reason": "client_cancelled"}

    def _fail(self, error: RequestError) -> None:
        self._status = "failed"
        told = {"type": error.type, "code": error.code, "message": error.message}
        self._details = {"type": "failed", "error": told}
        if error.retry_after_s is not None:
            self._details["proactivellm"] = {"retry_after_s": error.retry_after_s}

    async def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        await self._reasoning.finish()
        await self._of_item("response.output_item.added")
        if self.wish.conversation_id is not None:
            await self._send({"type": "conversation.item.added", "item": self.item})
        part = {"type": "text", "text": ""}
        await self._send(self._of_part("response.content_part.added", part=part))

    async def _finish(self) -> None:
        await self._reasoning.finish(self._status == "completed")
        await self._begin()
        await self._send(self._of_part("response.output_text.done", text=self.text))
        part = {"type": "text", "text": self.text}
        await self._send(self._of_part("response.content_part.done", part=part))
        await self._of_item("response.output_item.done")
        if self.wish.conversation_id is not None:
            await self._send({"type": "conversation.item.done", "item": self.item})
        await self._send({"type": "response.done", "response": self._object()})

    async def _of_item(self, kind: str) -> None:
        where = {"response_id": self.id, "output_index": self._place}
        await self._send({"type": kind, **where, "item": self.item})

    def _of_part(self, kind: str, **more: Any) -> dict[str, Any]:
        where = {"response_id": self.id, "item_id": self.item_id}
        return {"type": kind, **where, "output_index": self._place, "content_index": 0, **more}

    @property
    def _place(self) -> int:
        """Of the message, in the output."""
        return len(self._thoughts)

    @property
    def _thoughts(self) -> list[dict[str, Any]]:
        return [self._reasoning.item] if self._reasoning.texts else []

    def _object(self) -> dict[str, Any]:
        over = self._status != "in_progress"
        usage = self.turn.tokens.cut(self.wish.most_tokens).usage  # what came after is not told
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self._status,
            "status_details": self._details,
            "output": [*self._thoughts, self.item] if over else [],
            "output_modalities": ["text"],
            "conversation_id": self.wish.conversation_id,
            "max_output_tokens": self.wish.max_output_tokens or "inf",
            "metadata": self.wish.metadata,
            "usage": usage if over else None,
            "proactivellm": {"forwards": self.turn.forwards} if over else None,
        }
