"""The thoughts of a response: an item of its own before its message, as in OpenAI's Responses API.

Their events are those of that API, as its realtime protocol has none: `response.reasoning_text.*`.
"""

import secrets
from typing import Any

from proactivellm.serve.realtime.extension import Send, position
from proactivellm.stream import StreamEvent


class Reasoning:
    """The item of the type `reasoning`, with a part for each thought; skipped ones are empty."""

    def __init__(self, response_id: str, send: Send) -> None:
        self.texts: list[str] = []
        self._id, self._response_id, self._send = f"rs_{secrets.token_hex(10)}", response_id, send
        self._status = "in_progress"
        self._is_open = False  # whether the last thought goes on

    @property
    def item(self) -> dict[str, Any]:
        """As far as it is written."""
        return {
            "id": self._id,
            "type": "reasoning",
            "status": self._status,
            "summary": [],
            "content": [{"type": "reasoning_text", "text": text} for text in self.texts],
        }

    async def tell(self, event: StreamEvent) -> None:
        """Tell of new text of a thought, or of its end."""
        if not self.texts:
            await self._of_item("added")
        if not self._is_open:
            self.texts.append("")
        self.texts[-1] += event.text
        self._is_open = not event.closes
        if event.text:
            await self._of_part("delta", delta=event.text, proactivellm=position(event))
        if event.closes:
            await self._of_part("done", text=self.texts[-1], proactivellm=position(event))

    async def finish(self, complete: bool = True) -> None:
        """Nothing more is thought; idempotent."""
        if self._status != "in_progress" or not self.texts:
            return
        self._status = "completed" if complete else "incomplete"
        if self._is_open:
            await self._of_part("done", text=self.texts[-1])
        await self._of_item("done")

    async def _of_item(self, what: str) -> None:
        where = {"response_id": self._response_id, "output_index": 0}
        await self._send({"type": f"response.output_item.{what}", **where, "item": self.item})

    async def _of_part(self, what: str, **more: Any) -> None:
        where = {"response_id": self._response_id, "item_id": self._id, "output_index": 0}
        place = {"content_index": len(self.texts) - 1}
        await self._send({"type": f"response.reasoning_text.{what}", **where, **place, **more})
