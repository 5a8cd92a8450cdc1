"""The ids that a repetition penalty looks at, kept from step to step.

A stream reads and writes at its end, so that a step has only a few ids to add. What leaves a
window may still stand elsewhere in view: a stream that drops anything starts a new collection.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from proactivellm.session.state import SessionState


class SeenIds:
    """The distinct ids of what one stream has in view."""

    def __init__(self) -> None:
        self._num_pieces = self._num_target = self._num_thought = (
            0  # of what is in view, those looked at
        )
        self._seen: set[int] = set()
        self._new: list[int] = []  # not in the buffer yet
        self._buffer: Tensor | None = None
        self._length = 0

    def of(self, state: "SessionState", device: torch.device) -> Tensor:
        """Ids read and written that are in view, each once: int64 [I]."""
        for piece in state.source[self._num_pieces :]:
            if not isinstance(piece.tokens, Tensor):
                self._add(piece.tokens)
        self._add(state.target[self._num_target :])
        self._add(state.thought[self._num_thought :])
        self._num_pieces, self._num_target = len(state.source), len(state.target)
        self._num_thought = len(state.thought)
        ids = self._on(device)
        drafted = sorted(set(state.draft) - self._seen)  # may be taken back
        if not drafted:
            return ids
        return torch.cat([ids, torch.tensor(drafted, dtype=torch.long, device=device)])

    def _add(self, ids: Sequence[int]) -> None:
        for token in ids:
            if token not in self._seen:
                self._seen.add(token)
                self._new.append(token)

    def _on(self, device: torch.device) -> Tensor:
        """The ids as a tensor, which grows by what is new."""
        buffer, length = self._buffer, self._length + len(self._new)
        if buffer is None or buffer.device != device or len(buffer) < length:
            larger = torch.empty(max(64, 2 * length), dtype=torch.long, device=device)
            if buffer is not None:
                larger[: self._length] = buffer[: self._length]
            buffer = self._buffer = larger
        if self._new:
            buffer[self._length : length] = torch.tensor(self._new, dtype=torch.long, device=device)
            self._length, self._new = length, []
        return buffer[:length]
