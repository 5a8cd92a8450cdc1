"""What positions are counted with, and source tokens that lie in space as well as in time.

Legend: C = position counters.
"""

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

    @property
    def places(self) -> int:
        """Tokens that there would be if all were kept."""
        return self.moments * self.height * self.width

    @property
    def size(self) -> int:
        """Tokens."""
        return self.places if self.kept is None else len(self.kept)

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


@dataclass
class Numbers:
    """What the counters have come to while tokens are placed one after another."""

    next: list[int]  # position of the next token of each, [C]
    run: Run | None = None  # the video that the next moment may belong to
