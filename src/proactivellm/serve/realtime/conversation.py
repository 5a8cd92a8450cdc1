"""A session of text: messages or streaming text in, responses out.

A source is either whole, by `conversation.item.create` and `response.create`, or it streams, by
`input_text_buffer.append`, and its response begins with its first piece. Responses of a session
come one after another. Each is of its own source: the model does not see earlier ones.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import Any

from proactivellm.output.source_units import joined_texts
from proactivellm.serve.errors import RequestError, not_supported, unknown_event
from proactivellm.serve.models import Models
from proactivellm.serve.realtime.client_events import (
    ItemCreate,
    ItemNamed,
    ResponseCancel,
    ResponseCreate,
    ResponseFields,
    SessionUpdate,
    TextAppend,
    parse,
)
from proactivellm.serve.realtime.items import Items, text_of, user_item
from proactivellm.serve.realtime.response import Response, Wish
from proactivellm.serve.realtime.session_config import SessionConfig, check_modalities
from proactivellm.serve.realtime.turn import Turn
from proactivellm.serve.sessions import Dialogue, Session
from proactivellm.serve.settings import Settings

_BUFFER = "input_text_buffer"
_MOST_WAITING = 8  # responses of one session that are not done

Handler = Callable[["Conversation", dict[str, Any]], Awaitable[None]]


class Conversation(Dialogue):
    """What a session of text does."""

    def __init__(
        self, session: Session, config: SessionConfig, models: Models, settings: Settings
    ) -> None:
        self._session, self._send = session, session.send
        self._config, self._models, self._settings = config, models, settings
        self._id = session.id.replace("sess_", "conv_", 1)
        self._items = Items()
        self._unanswered: dict[str, str] = {}  # texts that no response was made of, by item
        self._open: tuple[Turn, dict[str, Any]] | None = None  # a source that still streams
        self._responses: dict[str, tuple[Response, asyncio.Task[None]]] = {}
        self._one_by_one = asyncio.Lock()

    @property
    def busy(self) -> bool:
        return bool(self._responses)

    @property
    def taken(self) -> float:
        return 0 if self._open is None else self._open[0].size

    async def begin(self) -> None:
        await self._send({"type": "session.created", "session": self._session_object()})

    async def handle(self, event: dict[str, Any]) -> None:
        kind = str(event["type"])
        if kind.startswith(("input_audio_buffer.", "output_audio_buffer.")):
            raise not_supported(f"{kind}: {self._config.served.name} reads text; audio", "type")
        if kind not in _HANDLERS:
            raise unknown_event(kind, "a session of text")
        await _HANDLERS[kind](self, event)

    async def end(self) -> None:
        responses = [*self._responses.values()]
        for response, _ in responses:
            with suppress(RuntimeError):  # its engine has died
                await response.turn.cancel()
        if responses:  # which are not cut short with who waits for them
            await asyncio.wait([task for _, task in responses])

    async def _update(self, event: dict[str, Any]) -> None:
        fields = parse(SessionUpdate, event).session
        before, new = self._config, self._config.updated(fields, self._models)
        if self._open is not None and new.settled != before.settled:
            raise RequestError(
                "question and depth, and of video the model, stand before their source, and this "
                "one streams: commit or clear it first",
                code="source_has_begun",
                param="session.proactivellm",
            )
        self._config = new
        await self._send({"type": "session.updated", "session": self._session_object()})

    async def _create_item(self, event: dict[str, Any]) -> None:
        asked = parse(ItemCreate, event)
        text = text_of(asked.item, "item")
        self._check_size(sum(map(len, self._unanswered.values())) + len(text), "item.content")
        item = user_item(text, name=asked.item.id)
        previous = self._items.add(item, asked.previous_item_id)
        self._unanswered[item["id"]] = text
        await self._tell_item(item, previous)

    async def _tell_item(self, item: dict[str, Any], previous: str | None) -> None:
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self._send({"type": kind, "previous_item_id": previous, "item": item})

    async def _retrieve_item(self, event: dict[str, Any]) -> None:
        item = self._items.get(parse(ItemNamed, event).item_id)
        await self._send({"type": "conversation.item.retrieved", "item": item})

    async def _delete_item(self, event: dict[str, Any]) -> None:
        name = parse(ItemNamed, event).item_id
        self._items.delete(name)
        self._unanswered.pop(name, None)
        await self._send({"type": "conversation.item.deleted", "item_id": name})

    async def _create_response(self, event: dict[str, Any]) -> None:
        asked = parse(ResponseCreate, event).response
        check_modalities(asked.output_modalities, "response.output_modalities")
        config = self._config.reasoning(asked.reasoning)
        if asked.proactivellm is not None:
            config = config.extended(asked.proactivellm, "response.proactivellm")
        apart = asked.conversation == "none"
        if self._responses and not apart:
            raise RequestError(
                "a response is being written; wait for its response.done, or cancel it",
                code="conversation_already_has_active_response",
            )
        turn = await self._turn_of(asked, config)
        wish = self._wish(config, apart, asked.metadata, asked.max_output_tokens)
        self._respond(turn, wish)
        if asked.input is None:
            self._unanswered.clear()

    async def _turn_of(self, asked: ResponseFields, config: SessionConfig) -> Turn:
        """What is to be responded to, as a whole; RequestError if there is nothing."""
        if asked.input is not None:
            places = enumerate(asked.input)
            texts = [text_of(item, f"response.input.{place}") for place, item in places]
        else:
            texts = [*self._unanswered.values()]
        if not texts:
            raise RequestError(
                "there is nothing to respond to: create an item, or append text first",
                code="no_input",
            )
        source = joined_texts(texts)
        self._check_size(len(source), "response.input")
        turn = Turn(config, self._settings)
        turn.push(source, 0)  # its size was checked where it came in
        turn.close()
        return turn

    async def _cancel_response(self, event: dict[str, Any]) -> None:
        name = parse(ResponseCancel, event).response_id
        name = next(iter(self._responses), None) if name is None else name
        if name not in self._responses:
            raise RequestError(
                "there is no such response, or it is done",
                code="response_cancel_not_active",
                param="response_id",
            )
        await self._responses[name][0].turn.cancel()

    async def _append_text(self, event: dict[str, Any]) -> None:
        text = parse(TextAppend, event).text
        if self._open is None:
            turn = Turn(self._config, self._settings)
            turn.push(text, len(text))
            item = user_item("", "in_progress")
            await self._begin_source(turn, item)
        else:
            (turn, item) = self._open
            turn.push(text, len(text))
        item["content"][0]["text"] += text

    async def _begin_source(self, turn: Turn, item: dict[str, Any]) -> None:
        """Respond to a source that streams from now on."""
        self._respond(turn, self._wish(self._config))
        previous = self._items.add(item)
        self._open = turn, item
        await self._send(
            {"type": "conversation.item.added", "previous_item_id": previous, "item": item}
        )

    async def _commit_text(self, event: dict[str, Any]) -> None:
        await self._commit_source(_BUFFER)

    async def _commit_source(self, buffer: str) -> None:
        if self._open is None:
            raise RequestError("nothing was appended", code=f"{buffer}_commit_empty")
        (turn, item), self._open = self._open, None
        turn.close()
        item["status"] = "completed"
        await self._send({"type": f"{buffer}.committed", "item_id": item["id"]})
        await self._send({"type": "conversation.item.done", "item": item})

    async def _clear_text(self, event: dict[str, Any]) -> None:
        await self._clear_source(_BUFFER)

    async def _clear_source(self, buffer: str) -> None:
        if self._open is not None:
            (turn, item), self._open = self._open, None
            await turn.cancel()
            self._items.delete(item["id"])
        await self._send({"type": f"{buffer}.cleared"})

    def _check_size(self, size: int, param: str) -> None:
        if size > self._settings.turn_chars:
            raise RequestError(
                f"a source may have {self._settings.turn_chars} characters, got {size}",
                code="input_too_long",
                param=param,
            )

    def _wish(
        self,
        config: SessionConfig,
        apart: bool = False,
        metadata: dict[str, str] | None = None,
        max_output_tokens: int | str | None = None,
    ) -> Wish:
        return Wish(
            conversation_id=None if apart else self._id,
            metadata=metadata,
            max_output_tokens=max_output_tokens or config.max_output_tokens,
            decisions=config.decisions,
        )

    def _respond(self, turn: Turn, wish: Wish) -> None:
        if len(self._responses) >= _MOST_WAITING:
            raise RequestError(
                f"{len(self._responses)} responses are not done yet",
                code="too_many_responses",
                type="rate_limit_exceeded",
                retry_after_s=1.0,
            )
        response = Response(turn, wish, self._send)
        task = asyncio.get_running_loop().create_task(self._run(response))
        self._responses[response.id] = response, task

    async def _run(self, response: Response) -> None:
        async with nullcontext() if response.turn.beside else self._one_by_one:
            try:
                if response.wish.conversation_id is not None:
                    self._items.add(response.item)
                await response.run()
                self._items.put(response.item)
            finally:
                del self._responses[response.id]

    def _session_object(self) -> dict[str, Any]:
        return self._config.as_dict(self._session.id, self._settings.resume_s)


_HANDLERS: dict[str, Handler] = {
    "session.update": Conversation._update,
    "conversation.item.create": Conversation._create_item,
    "conversation.item.retrieve": Conversation._retrieve_item,
    "conversation.item.delete": Conversation._delete_item,
    "response.create": Conversation._create_response,
    "response.cancel": Conversation._cancel_response,
    "input_text_buffer.append": Conversation._append_text,
    "input_text_buffer.commit": Conversation._commit_text,
    "input_text_buffer.clear": Conversation._clear_text,
}
