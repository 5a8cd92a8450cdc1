"""What positions are counted with, and source tokens that lie in space as well as in time.

Legend: C = position counters, A = axes of a position.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ROUNDING = 1e-6  # steps such as 4 / 3 are fractions meant, and floats here


class Grid(NamedTuple):
    """The tokens of one or more moments of a video, moment by moment and row by row.

    Their positions have three axes, time, height and width (M-RoPE, arXiv 2409.12191, section 2.1).
    """

    height: int
    width: int
    # Positions on the axis of time from one moment to the next, of which whole ones count: moment k
    # of a video is at the whole part of k * step.
    step: float = 1.0
    # Whether time counts where something comes after the video: it then begins after the largest
    # position on any axis, else after the largest in height and width.
    timed: bool = True
    moments: int = 1
    kept: tuple[int, ...] | None = None  # places that have a token, in order; None: all have one
    # Tokens of text before and after each moment, which is then a video of its own; empty: there
    # are none. They have one axis, and are among the tokens whatever is kept.
    texts: tuple[tuple[int, int], ...] = ()

    @property
    def places(self) -> int:
        """Tokens that there would be if all were kept."""
        return self.moments * self.height * self.width

    @property
    def seen(self) -> int:
        """Tokens that lie in space."""
        return self.places if self.kept is None else len(self.kept)

    @property
    def size(self) -> int:
        """Tokens, those of text too."""
        return self.seen + sum(map(sum, self.texts))

    def runs(self) -> Iterator[tuple[int, "Grid | None"]]:
        """Tokens that belong together, in order: how many, and how they lie (None: as text)."""
        if not self.texts:
            yield self.seen, self
            return
        of_moment = self.height * self.width
        for moment, (before, after) in enumerate(self.texts):
            kept = None
            if self.kept is not None:
                ahead = moment * of_moment
                kept = tuple(k - ahead for k in self.kept if ahead <= k < ahead + of_moment)
            part = self._replace(moments=1, kept=kept, texts=())
            yield from ((before, None), (part.seen, part), (after, None))

    def rows_in_space(self) -> np.ndarray:
        """Which of the tokens lie in space: bool [size]."""
        runs = [np.full(n, lies is not None) for n, lies in self.runs()]
        return np.concatenate([np.zeros(0, bool), *runs])

    def axes(self, before: int) -> np.ndarray:
        """Positions int64 [3, size] from the start of a video, after so many moments of it."""
        place = np.arange(self.places) if self.kept is None else np.array(self.kept, np.int64)
        moment, within = np.divmod(place, self.height * self.width)
        time = np.floor((moment + before) * self.step + ROUNDING).astype(np.int64)
        return np.stack([time, *np.divmod(within, self.width)])

    def extent(self, before: int) -> int:
        """Positions of a video up to its end, which that of these moments is."""
        last = int((before + self.moments - 1) * self.step + ROUNDING)
        return max(self.height, self.width, last + 1 if self.timed else 0)


class Run(NamedTuple):
    """Moments that followed each other on a counter: they are one video, which may go on."""

    counter: int
    start: int  # position of the first one, where all of them are in height and width
    moments: int  # so far
    end: int  # what the counter has come to: if it is elsewhere, something else came after them


class Reached(NamedTuple):
    """What positions go on from, where the numbers of tokens do not tell."""

    ahead: tuple[int, ...]  # how much further each counter is than its tokens, [C]
    run: Run | None


def in_a_row(places: Sequence[np.ndarray]) -> np.ndarray:
    """Positions [A, n] side by side; those of one axis are the same on all that others have."""
    axes = max((len(position_AT) for position_AT in places), default=1)
    wide = [np.broadcast_to(each, (axes, each.shape[1])) for each in places]
    return np.concatenate(wide, axis=1) if wide else np.zeros((1, 0), np.int64)


@dataclass
class Numbers:
    """What the counters have come to while tokens are placed one after another."""

    next: list[int]  # position of the next token of each, [C]
    run: Run | None = None  # the video that the next moment may belong to
