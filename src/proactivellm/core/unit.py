"""The source unit: what one READ takes in, whatever the modality it came from."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proactivellm.core.positions import Grid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Unit:
    """One piece of the source: a word, an audio chunk, a frame; token ids or features, never both.

    A unit with neither and `final=True` is the bare end-of-stream marker of `Unit.end()`, which is
    not counted as a unit read. Units compare equal without looking at `features`.
    """

    text: str = ""
    """What was read, for people and for logs, without the surrounding spaces."""
    token_ids: tuple[int, ...] = ()
    """Source token ids, in order; any iterable of ints is accepted and stored as a tuple."""
    features: Tensor | None = field(default=None, compare=False, repr=False)
    """Embeddings or frames [T, D] of a unit that is not text."""
    start_s: float = 0.0
    """When the unit began, in seconds from the start of the source."""
    end_s: float = 0.0
    """When the unit was complete and could be read, in seconds from the start of the source."""
    final: bool = False
    """Whether the source ends with this unit."""
    holds: bool = False
    """Whether nothing is written before more is read: of what comes before a question."""
    asks: bool = False
    """Whether it is a question about the source: it stays in sight, and recalls units."""
    grid: Grid | None = None
    """How its features lie in space; None = one after another, as text."""
    spoken: float | None = None
    """Words that are over by its end, of all since the source began, the one under way by how
    likely that is; None = nothing counts them."""
    glued: bool = False
    """Whether its text goes on, without white space, after that of the unit before."""
    silent: bool = False
    """Whether nobody speaks in it, as far as its front end can tell."""

    def __post_init__(self) -> None:
        try:
            token_ids = tuple(map(operator.index, self.token_ids))
        except TypeError:
            given = self.token_ids if isinstance(self.token_ids, str) else list(self.token_ids)
            raise ValueError(f"token_ids={given!r}: give whole numbers") from None
        object.__setattr__(self, "token_ids", token_ids)
        if self.token_ids and self.features is not None:
            raise ValueError("a unit has token_ids or features, not both: make two units of it")
        if self.grid is not None and (
            self.features is None or len(self.features) != self.grid.size
        ):
            raise ValueError(f"{self.grid} takes {self.grid.size} features: one for each place")
        if self.end_s < self.start_s:
            raise ValueError(
                f"a unit cannot end at end_s={self.end_s} before it starts at "
                f"start_s={self.start_s}: give both in seconds from the start of the source"
            )

    @classmethod
    def end(cls, at_s: float = 0.0) -> Unit:
        """The bare end-of-stream marker of a source that was complete at `at_s` seconds."""
        return cls(start_s=at_s, end_s=at_s, final=True)

    @property
    def tokens(self) -> Sequence[int] | Tensor:
        """Token ids or features, whichever it carries; each makes one source token."""
        return self.token_ids if self.features is None else self.features

    @property
    def is_end(self) -> bool:
        """Whether this is the bare end-of-stream marker: nothing to read, source complete."""
        return self.final and not self.token_ids and self.features is None
