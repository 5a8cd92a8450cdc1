"""Audio on its way to text, told as items: each is transcribed while its audio arrives."""

from contextlib import suppress
from typing import Any

from proactivellm.serve.errors import RequestError, engine_failed
from proactivellm.serve.realtime.extension import DECIDED, Send, Silence, decision, position
from proactivellm.serve.realtime.items import new_item
from proactivellm.serve.realtime.speech import Speech
from proactivellm.serve.realtime.turn import Turn
from proactivellm.stream import StreamEvent

_OF_ITEM = "conversation.item.input_audio_transcription"


class Transcript:
    """A buffer of audio that becomes one item, or one for each turn that a gate hears in it.

    Args:
        begins_s: where it begins in the audio of the session; None = turns are not detected.

    Attributes:
        items: of the session, in order; the last one is that of the newest audio.
        committed: whether the client has said that nothing more comes.
    """

    def __init__(
        self, turn: Turn, send: Send, items: list[str], begins_s: float | None, decisions: bool
    ) -> None:
        self.turn, self.items = turn, items
        self.committed = self._dropped = False
        self._send, self._decisions = send, decisions
        self._speech = None if begins_s is None else Speech(send, begins_s)
        self._item, self._text, self._told_s = self._next_item(), "", 0.0

    async def commit(self) -> None:
        """The client has sent all of it; idempotent."""
        if not self.committed:
            self.committed = True
            self.turn.close()
            await self._tell_item()

    async def drop(self) -> None:
        """The client wants no more of it; idempotent."""
        self._dropped = True
        with suppress(RuntimeError):  # its engine has died
            await self.turn.cancel()

    async def run(self) -> None:
        """Until all is told, whatever goes wrong."""
        silence = Silence()
        try:
            async for event in self.turn.events():
                await self._tell(event, silence)
            if self.committed and not self._dropped:
                await self._complete()
        except RequestError as error:
            await self._fail(error)
        except Exception as error:
            await self._fail(engine_failed(error, "send the audio again"))

    async def _tell(self, event: StreamEvent, silence: Silence) -> None:
        if self._dropped:
            return
        if self._speech is not None and await self._speech.tell(event, self.committed):
            return
        if self._decisions and event.kind in DECIDED:
            await self._send({**decision(event), "item_id": self._item})
        if event.kind == "WRITE":
            delta = event.text if self._text else event.text.lstrip()
            self._text += delta
            more = {"delta": delta, "proactivellm": position(event)}
            await self._send(self._of_item("delta", **more))
        elif event.kind == "END" and self._speech is not None and not self.committed:
            await self._tell_item()
            await self._complete()
            self._item, self._text = self._next_item(), ""
        if (quiet := silence.of(event)) is not None:
            await self._send({**quiet, "item_id": self._item})

    def _next_item(self) -> str:
        return new_item() if self._speech is None else self._speech.next_item()

    async def _tell_item(self) -> None:
        previous = self.items[-1] if self.items else None
        self.items.append(self._item)
        del self.items[:-1]
        where = {"item_id": self._item, "previous_item_id": previous}
        await self._send({"type": "input_audio_buffer.committed", **where})
        item = {
            "id": self._item,
            "object": "realtime.item",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self._send({"type": kind, "previous_item_id": previous, "item": item})

    async def _complete(self) -> None:
        heard_s, self._told_s = self.turn.size - self._told_s, self.turn.size
        usage = {"type": "duration", "seconds": round(heard_s, 3)}
        await self._send(self._of_item("completed", transcript=self._text, usage=usage))

    async def _fail(self, error: RequestError) -> None:
        if self._dropped:
            return
        if not self.committed:  # what failed is told of an item that is there
            await self._tell_item()
            self.committed = True
        told = {"type": error.type, "code": error.code, "message": error.message, "param": None}
        await self._send(self._of_item("failed", error=told))

    def _of_item(self, what: str, **more: Any) -> dict[str, Any]:
        where = {"item_id": self._item, "content_index": 0}
        return {"type": f"{_OF_ITEM}.{what}", **where, **more}
