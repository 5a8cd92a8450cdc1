"""Layouts as values: which groups a stream has, who may attend to whom, where their tokens sit.

The masks of training and the cache of inference are both made from a layout. Legend: G = groups, C
= position counters, A = axes of a position (text has one), n = tokens.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from proactivellm.core.positions import Grid, Numbers, Reached, Run, in_a_row

SOURCE, TARGET = "source", "target"  # the groups that every session drives
THOUGHT = "thought"  # what a model that thinks writes between them


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Named groups, a table of visibility between them, and the counter that each one uses."""

    name: str
    # In the order in which their tokens arrive while no further unit is read.
    groups: tuple[str, ...]
    # `attends[query][key]`: may a query of one group see earlier keys of another?
    attends: tuple[tuple[bool, ...], ...]
    # Position counter of each group, from 0; groups that name the same one share it, in arrival
    # order.
    counter: tuple[int, ...]
    # Added to every position of a group (the phi of GPE, arXiv 2505.16983, section 4).
    offset: tuple[int, ...]
    # A READ forgets what was written, and feeds it again after all that is read.
    reencoded: bool = False
    # After each unit of the source, all counters go on from the furthest of them.
    joins: bool = False

    def __post_init__(self) -> None:
        sizes = {len(self.groups), len(self.attends), len(self.counter), len(self.offset)}
        sizes |= {len(row) for row in self.attends}
        if len(sizes) > 1 or len(set(self.groups)) < len(self.groups):
            raise ValueError(
                f"layout {self.name!r}: give each of its groups {self.groups} a name of its own, a "
                "row and a column of `attends`, a counter and an offset"
            )
        if min(self.offset) < 0:
            raise ValueError(f"phi must be 0 or more, got {min(self.offset)}")

    @cached_property
    def index(self) -> dict[str, int]:
        """Number of each group."""
        return {name: number for number, name in enumerate(self.groups)}

    @cached_property
    def sees_all(self) -> np.ndarray:
        """Whether a group may attend to every other: bool [G]."""
        return np.array([all(row) for row in self.attends])

    def numbers(self, counts: Mapping[str, int], reached: Reached | None = None) -> Numbers:
        """What the counters have come to after so many tokens of each group.

        `reached` is what `reached` said when a unit was last read; None = no unit has ever made a
        difference.
        """
        numbers = self._tokens(counts)
        if reached is None:
            return Numbers(numbers)
        return Numbers([a + b for a, b in zip(numbers, reached.ahead, strict=True)], reached.run)

    def reached(self, numbers: Numbers, counts: Mapping[str, int]) -> Reached | None:
        """What there is to remember beside the tokens of each group; None = nothing.

        It stays the same until a unit is read, whatever of the target is written or taken back.
        """
        tokens = self._tokens(counts)
        if numbers.run is None and numbers.next == tokens:
            return None
        ahead = tuple(a - b for a, b in zip(numbers.next, tokens, strict=True))
        return Reached(ahead, numbers.run)

    def positions(
        self, group: int, n: int, numbers: Numbers, grid: Grid | None = None
    ) -> np.ndarray:
        """Positions of the next n tokens of a group, int64 [A, n]; moves `numbers` on.

        Tokens that lie in a grid have three axes. Moments that follow each other are one video:
        only time goes on between them. What comes after the video begins after its largest
        position, as in transformers 4.49, with which Qwen2.5-VL was published; or, if the grid is
        not timed, after its height or width, as in transformers since 5.3. Moments with text around
        them, as Qwen3-VL has them, are videos of their own.
        """
        if grid is not None and grid.texts:
            return in_a_row([self.positions(group, k, numbers, part) for k, part in grid.runs()])
        counter, offset = self.counter[group], self.offset[group]
        first = numbers.next[counter]
        if grid is None:
            numbers.next[counter] = first + n
            first += offset
            return np.arange(first, first + n)[None]
        run = numbers.run
        if self.joins or run is None or (run.counter, run.end) != (counter, first):
            run = Run(counter, first, 0, first)
        end = max(run.end, run.start + grid.extent(run.moments))
        numbers.next[counter] = end
        numbers.run = run._replace(moments=run.moments + grid.moments, end=end)
        return grid.axes(run.moments) + (run.start + offset)

    def end_unit(self, numbers: Numbers) -> None:
        """To be called when all of a source unit is placed: counters that join do so now."""
        if self.joins:
            numbers.next = [max(numbers.next)] * len(numbers.next)

    def _tokens(self, counts: Mapping[str, int]) -> list[int]:
        """Tokens on each counter, [C]."""
        numbers = [0] * len(self.groups)
        for name, count in counts.items():
            numbers[self.counter[self.index[name]]] += count
        return numbers

    def independent(self, read: Iterable[str]) -> set[str]:
        """Those groups, of the ones only read, that depend on nothing that is written."""
        free = set(read)
        while bound := {name for name in free if self._needs(name) - free}:
            free -= bound
        return free

    def _needs(self, name: str) -> set[str]:
        """Groups that a group sees, or whose number moves its counter."""
        mine = self.index[name]
        return {
            other
            for other, index in self.index.items()
            if self.joins or self.attends[mine][index] or self.counter[mine] == self.counter[index]
        }


def grouped(phi: int = 0) -> Layout:
    """Group position encoding: a counter per group, from phi on for the target, which sees both."""
    return Layout(
        name="grouped",
        groups=(SOURCE, TARGET),
        attends=((True, False), (True, True)),
        counter=(0, 1),
        offset=(0, phi),
    )


def overlapped(phi: int = 0) -> Layout:
    """As grouped, but the next unit begins where what is written of this one does.

    OSPE of Speak-While-Watching (arXiv 2601.06843): what comes after both begins after the longer.
    """
    return Layout(
        name="overlapped",
        groups=(SOURCE, TARGET),
        attends=((True, False), (True, True)),
        counter=(0, 1),
        offset=(0, phi),
        joins=True,
    )


def interleaved(phi: int = 0) -> Layout:
    """One counter in arrival order, phi added to target positions; all see everything earlier."""
    return Layout(
        name="interleaved",
        groups=(SOURCE, TARGET),
        attends=((True, True), (True, True)),
        counter=(0, 0),
        offset=(0, phi),
    )


def reencoded(phi: int = 0) -> Layout:
    """Batch order, as models are trained offline: after each READ the target is fed again."""
    return Layout(
        name="reencoded",
        groups=(SOURCE, TARGET),
        attends=((True, True), (True, True)),
        counter=(0, 0),
        offset=(0, phi),
        reencoded=True,
    )


def thoughts(phi: int = 0) -> Layout:
    """A model that thinks while it reads (StreamingThinker, arXiv 2510.17238)."""
    # Thoughts and target are one text with one counter, from phi on; the source sees neither.
    return Layout(
        name="thoughts",
        groups=(SOURCE, THOUGHT, TARGET),
        attends=((True, False, False), (True, True, True), (True, True, True)),
        counter=(0, 1, 1),
        offset=(0, phi, phi),
    )


def interleaved_thoughts(phi: int = 0) -> Layout:
    """`interleaved` with thoughts: the order of arrival, which under `offline` is batch order."""
    return Layout(
        name="interleaved-thoughts",
        groups=(SOURCE, THOUGHT, TARGET),
        attends=((True, True, True), (True, True, True), (True, True, True)),
        counter=(0, 0, 0),
        offset=(0, phi, phi),
    )


LAYOUTS = {
    "grouped": grouped,
    "interleaved": interleaved,
    "reencoded": reencoded,
    "thoughts": thoughts,
    "interleaved-thoughts": interleaved_thoughts,
    "overlapped": overlapped,
}


def make_layout(name: str, phi: int = 0) -> Layout:
    """The layout of a name in LAYOUTS; ValueError if it is unknown or phi negative."""
    if name not in LAYOUTS:
        raise ValueError(f"unknown layout {name!r}; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name](phi)
