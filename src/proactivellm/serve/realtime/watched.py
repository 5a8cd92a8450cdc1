"""A session that watches: pictures in, responses of text out.

Pictures stream by `input_image_buffer.append`, so many a second as the session says, and a response
begins with the first of them. What is asked is `question` of the session, read before each video,
or the text of a message, asked at the moment at which it comes; until then nothing is written. The
next question ends that video: its response is completed, and the pictures that follow are a video
of their own. A response of its own (`response.create` with `input`, `conversation` "none") answers
a question about what was watched so far, while the video goes on and has no question. A video that
is there as a whole, in messages, is answered by `response.create`.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from proactivellm.serve.errors import RequestError, not_supported
from proactivellm.serve.models import Models
from proactivellm.serve.pictures import decode
from proactivellm.serve.realtime.client_events import (
    Content,
    Item,
    ItemCreate,
    PictureAppend,
    ResponseFields,
    parse,
)
from proactivellm.serve.realtime.conversation import Conversation
from proactivellm.serve.realtime.items import check_message, user_item
from proactivellm.serve.realtime.session_config import SessionConfig
from proactivellm.serve.realtime.turn import Branch, Turn
from proactivellm.serve.sessions import Session
from proactivellm.serve.settings import Settings
from proactivellm.stream import Asking, Hearing

_BUFFER = "input_image_buffer"
_FOREIGN = ("input_text_buffer.", "input_audio_buffer.", "output_audio_buffer.")


class Watched(Conversation):
    """What a session of a model for video does."""

    def __init__(
        self, session: Session, config: SessionConfig, models: Models, settings: Settings
    ) -> None:
        super().__init__(session, config, models, settings)
        self._asked = False  # whether the video that streams has its question
        self._seen: dict[str, list[np.ndarray]] = {}  # pictures of messages, by item

    @property
    def _frames_per_s(self) -> int:
        fps: int = self._config.served.model.front_end.settings.fps
        return fps

    async def handle(self, event: dict[str, Any]) -> None:
        """As any dialogue."""
        kind = str(event["type"])
        if kind.startswith(_FOREIGN):
            name = self._config.served.name
            raise not_supported(f"{kind}: {name} watches pictures; anything else", "type")
        handler = {
            f"{_BUFFER}.append": self._append_picture,
            f"{_BUFFER}.commit": self._commit_video,
            f"{_BUFFER}.clear": self._clear_video,
            "conversation.item.create": self._create_message,
        }.get(kind, super().handle)
        await handler(event)

    async def _append_picture(self, event: dict[str, Any]) -> None:
        picture = await self._decoded(parse(PictureAppend, event).image, "image")
        waits = self._config.question is None
        if waits and self._open is not None and self._open[0].over:
            await self._commit_source(_BUFFER)  # it was answered: this begins another one
        if self._open is not None:
            self._open[0].push(picture[None], 1 / self._frames_per_s)
            return
        texts, pictures = self._kept()
        question = "".join(texts) or self._config.question
        turn = self._watching(self._config, question, [*pictures, picture])
        item = {**user_item("", "in_progress"), "content": [{"type": "input_image"}]}
        await self._begin_source(turn, item)
        self._asked = question is not None
        self._unanswered.clear()

    async def _commit_video(self, event: dict[str, Any]) -> None:
        await self._commit_source(_BUFFER)

    async def _clear_video(self, event: dict[str, Any]) -> None:
        await self._clear_source(_BUFFER)

    async def _create_message(self, event: dict[str, Any]) -> None:
        asked = parse(ItemCreate, event)
        self._check_number([asked.item], len(self._kept()[1]))
        text, pictures = await self._contents(asked.item, "item")
        self._check_size(sum(map(len, self._unanswered.values())) + len(text), "item.content")
        if self._open is not None:
            self._check_question(text, pictures)
        item = user_item(text, name=asked.item.id)
        item["content"] += [{"type": "input_image"} for _ in pictures]
        previous = self._items.add(item, asked.previous_item_id)
        if self._open is not None and (self._asked or self._open[0].over):
            await self._commit_source(_BUFFER)
        if self._open is not None:
            self._open[0].push(Asking(text), 0)
            self._asked = True
        else:
            self._unanswered[item["id"]], self._seen[item["id"]] = text, pictures
        await self._tell_item(item, previous)

    async def _turn_of(self, asked: ResponseFields, config: SessionConfig) -> Turn:
        """A whole video, of messages; or a question to one that streams."""
        if asked.input is None:
            texts, pictures = self._kept()
        else:
            self._check_number(asked.input)
            texts, pictures = [], []
            for place, item in enumerate(asked.input):
                text, more = await self._contents(item, f"response.input.{place}")
                texts, pictures = [*texts, text], [*pictures, *more]
        if self._open is not None and texts and not pictures:
            return self._asked_now(config, "".join(texts))
        if not pictures:
            raise RequestError(
                "there is nothing to respond to: create an item with pictures, or append some",
                code="no_input",
            )
        turn = self._watching(config, "".join(texts) or config.question or "", pictures)
        turn.close()
        return turn

    def _asked_now(self, config: SessionConfig, question: str) -> Turn:
        """A question to what was watched so far, while the video goes on."""
        assert self._open is not None
        if not question.strip():
            raise RequestError("ask something", code="no_input", param="response.input")
        if config.served.deepest:
            what = f"a question to what {config.served.name}, which thinks, has watched so far"
            raise not_supported(what, "response.input")
        return Branch(config, self._settings, self._open[0], question)

    def _watching(
        self, config: SessionConfig, question: str | None, pictures: list[np.ndarray]
    ) -> Turn:
        """A turn that has begun with these pictures; None: the question comes later."""
        model, fps = config.served.model, self._frames_per_s
        waits, depth = question is None, config.depth
        hearing = Hearing(model, fps, question or "", waits=waits, depth=depth)
        turn = Turn(config, self._settings, hearing)
        turn.push_all([picture[None] for picture in pictures], len(pictures) / fps)
        return turn

    def _kept(self) -> tuple[list[str], list[np.ndarray]]:
        """Texts and pictures that no response was made of."""
        self._seen = {name: self._seen[name] for name in self._unanswered}
        return [*self._unanswered.values()], sum(self._seen.values(), [])

    async def _contents(self, item: Item, param: str) -> tuple[str, list[np.ndarray]]:
        """Text and pictures of a message."""
        check_message(item, param)
        texts, pictures = [], []
        for place, content in enumerate(item.content):
            where = f"{param}.content.{place}"
            if content.type == "input_image":
                pictures.append(await self._decoded(_address(content, where), where))
            elif content.type == "input_text":
                texts.append(content.text or "")
            else:
                raise not_supported(f"content of type {content.type!r}", f"{where}.type")
        return "".join(texts), pictures

    async def _decoded(self, picture: str, param: str) -> np.ndarray:
        most = self._settings.picture_pixels
        return await asyncio.to_thread(decode, picture, most, param)

    def _check_question(self, text: str, pictures: list[np.ndarray]) -> None:
        """RequestError if it cannot be asked about a video that streams."""
        if pictures:
            raise not_supported("a message with pictures while others are appended", "item.content")
        if not text.strip():
            raise RequestError("ask something", code="no_input", param="item.content")

    def _check_number(self, items: Sequence[Item], kept: int = 0) -> None:
        """RequestError if these have too many pictures; before any of them is unpacked.

        A small message may hold a hundred, each of which becomes megabytes.
        """
        contents = [content for item in items for content in item.content]
        pictures = kept + sum(content.type == "input_image" for content in contents)
        if pictures / self._frames_per_s > self._settings.waiting_s:
            raise RequestError(
                f"{self._settings.waiting_s:g} s of pictures may wait for a response, and these "
                f"are {pictures} of {self._frames_per_s:g} a second",
                code="input_buffer_full",
            )


def _address(content: Content, param: str) -> str:
    if content.image_url is None or not content.image_url.startswith("data:"):
        raise not_supported("a picture that is no data URL", f"{param}.image_url")
    return content.image_url
