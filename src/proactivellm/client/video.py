"""A client that sends pictures."""

import base64
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

from proactivellm.client.client import Client
from proactivellm.client.session import Delta


class VideoClient(Client):
    """A session of `proactivellm serve` that watches; a context manager.

    Its turns come one after the other. The server says how many pictures make a second of video:
    `session["proactivellm"]["frames_per_s"]`.

    Args:
        question: read before each video; "" = nothing is asked; None = it comes while a video runs,
            and nothing is written before.
        more: as of `Client`.
    """

    def stream(  # type: ignore[override]  # its pieces are others
        self, source: Iterable[bytes | str] | AsyncIterable[bytes | str], thoughts: bool = False
    ) -> AsyncIterator[Delta]:
        """One turn: sends pictures as they come, and tells what is written meanwhile.

        A picture is the content of a JPEG, PNG or WebP file. A string among them is the question,
        asked at that moment: one a turn. The video has ended when there is no further piece. Left
        early, the turn is cancelled.

        Args:
            thoughts: as of `Client.stream`.

        Raises:
            ServerError: the server refuses it, or the connection is gone.
        """
        return self._stream(source, thoughts)

    async def _append(self, piece: Any) -> None:
        if isinstance(piece, str):
            content = [{"type": "input_text", "text": piece}]
            item = {"type": "message", "role": "user", "content": content}
            await self._send({"type": "conversation.item.create", "item": item})
        else:
            image = base64.b64encode(piece).decode()
            await self._send({"type": "input_image_buffer.append", "image": image})

    async def _commit(self) -> None:
        await self._send({"type": "input_image_buffer.commit"})
