"""Samples of a model that thinks while it watches: moments, a thought about each, then the answer.

A thought stands at the second of the media that tells it, and so belongs to the unit in which that
second lies (TaYS, arXiv 2603.02872, has one for each group of frames); a unit of which nothing is
to be thought is skipped.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from proactivellm.core.packing import Sample
from proactivellm.modality.base import Examples
from proactivellm.modality.text import TextSegmenter
from proactivellm.tasks.item import Item
from proactivellm.train.actions import ROUNDING
from proactivellm.train.thinking_table import ThinkingTable
from proactivellm.train.thoughts import ThinkingEncoder, ThoughtEncoder


class WatchedEncoder(ThinkingEncoder):
    """Items of media with thoughts; there are no deep stages."""

    def __init__(self, encoder: ThoughtEncoder, table: ThinkingTable, media: Examples) -> None:
        super().__init__(encoder, table)
        self.media = media
        self._text = TextSegmenter(encoder.tokenizer)

    def length(self, item: Item) -> float:
        self._check(item)  # each item comes here before anything is learnt
        seconds = item.duration_s or 0.0
        return self.media.length_per_s * seconds + len(item.source) + 2 * len(item.target)

    def sample(self, items: Sequence[Item], depth: int) -> Sample:
        """Of one item, whose moments are the units."""
        (item,) = items
        self._check(item)
        example = self.media.read([item.media])
        opening = self._opening(item.source)
        about = self._about(item, len(example.units))
        sample = self.encoder.assemble(opening, example.units, about, (), item.target)
        grids = dict(enumerate(example.grids, 1))
        return replace(sample, features=example.features, grids=grids)

    def _opening(self, question: str) -> list[int]:
        prompt, asked = self.encoder.prompt, question.strip()
        return prompt.opening(self._text.whole(asked)) if asked else list(prompt.source_head)

    def _about(self, item: Item, num_units: int) -> list[str]:
        """The thoughts about each unit, joined."""
        about: list[list[str]] = [[] for _ in range(num_units)]
        for time_s, thought in item.thoughts or ():
            place = math.ceil(time_s / (self.media.unit_s or 1.0) - ROUNDING) - 1
            about[min(max(place, 0), num_units - 1)] += [thought] if thought.strip() else []
        return [" ".join(each) for each in about]

    def _check(self, item: Item) -> None:
        """ValueError if there is nothing to learn about thoughts."""
        place = item.place or "an item"
        if not item.media or item.thoughts is None:
            raise ValueError(f"{place}: there are no thoughts to learn from: give it `thoughts`")
        if self.media.unit_s is None:
            raise ValueError(f"units of {self.media.kind} do not tell the time, as thoughts need")
        if item.source.strip() and self.encoder.prompt.num_open is None:
            raise ValueError(
                f"{place}: the prompt has no place for its question: give prompt.source_open"
            )
