"""A client that sends sound."""

import base64
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

from proactivellm.client.session import Delta, ServerError, Session, refuse

_OF_ITEM = "conversation.item.input_audio_transcription"


class SpeechClient(Session):
    """A session of `proactivellm serve` that listens; a context manager.

    Its turns come one after the other.

    Args:
        rate: samples per second; the others as of `Session`.
    """

    _query = {"intent": "transcription"}
    _begins, _writes = "input_audio_buffer.committed", f"{_OF_ITEM}.delta"
    _ends = (f"{_OF_ITEM}.completed", f"{_OF_ITEM}.failed")

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, rate: int = 24_000, **more: Any
    ) -> None:
        super().__init__(url, **more)
        self._rate, self._has_ended = rate, False

    def stream(self, source: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[Delta]:
        """One turn: sends the pieces of a recording as they come, and tells what is written.

        Pieces are PCM16, mono, little-endian, of whole samples. The recording has ended when there
        is no further one. Left early, it is dropped; if it has ended, the next turn waits for its
        end.

        Raises:
            ServerError: the server refuses it, or the connection is gone.
        """
        return self._stream(source)

    def _chosen(self) -> dict[str, Any]:
        audio = {"format": {"type": "audio/pcm", "rate": self._rate}, "turn_detection": None}
        chosen: dict[str, Any] = {"type": "transcription", "audio": {"input": audio}}
        if self._policy is not None:
            chosen["proactivellm"] = {"policy": self._policy}
        return chosen

    async def _append(self, piece: Any) -> None:
        self._has_ended = False
        audio = base64.b64encode(piece).decode()
        await self._send({"type": "input_audio_buffer.append", "audio": audio})

    async def _commit(self) -> None:
        self._has_ended = True
        await self._send({"type": "input_audio_buffer.commit"})

    def _check(self, last: dict[str, Any]) -> None:
        if "error" in last:
            refuse(last["error"])

    async def _leave(self, begun: dict[str, Any] | None) -> None:
        with suppress(ServerError):  # the connection ended
            if self._has_ended:
                await self._receive(*self._ends)
            else:
                await self._send({"type": "input_audio_buffer.clear"})
                await self._receive("input_audio_buffer.cleared")
