"""Where speech begins and ends in the audio that arrives, told as it is heard."""

from proactivellm.serve.realtime.extension import Send
from proactivellm.serve.realtime.items import new_item
from proactivellm.stream import StreamEvent


class Speech:
    """The turns that a gate hears in one buffer, each of which becomes an item.

    A turn may begin while those before it are still being written.

    Args:
        begins_s: where the buffer begins in the audio of the session.
    """

    def __init__(self, send: Send, begins_s: float) -> None:
        self._send, self._begins_s = send, begins_s
        self._name = new_item()
        self._begun = self._written = 0  # turns

    def next_item(self) -> str:
        """The id of the item of the next turn that is written."""
        self._written += 1
        return f"{self._name}_{self._written}"

    async def tell(self, event: StreamEvent, committed: bool) -> bool:
        """Whether the event is of a beginning or an end; told unless the client has committed."""
        if event.kind not in ("BEGIN", "PAUSE"):
            return False
        begins = event.kind == "BEGIN"
        self._begun += begins
        if not committed:
            kind, place = ("started", "audio_start_ms") if begins else ("stopped", "audio_end_ms")
            at_ms = round(1000 * (self._begins_s + (event.media_s or 0.0)))
            told = {"type": f"input_audio_buffer.speech_{kind}", place: at_ms}
            await self._send({**told, "item_id": f"{self._name}_{self._begun}"})
        return True
