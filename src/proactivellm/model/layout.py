"""Layouts as values: where each group's tokens sit, and which group may attend to which.

The mask of training (masks.py) and the cache of inference (cache.py) are both made from a layout;
a new arrangement of the stream is a further value, not a further code path.
"""

from dataclasses import dataclass
from enum import IntEnum


class Group(IntEnum):
    """The part of the stream a token belongs to."""

    SOURCE = 0
    TARGET = 1


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A position rule per group and a table of visibility between groups.

    Attributes:
        name: how recipes and the command line call it.
        attends: `attends[query][key]`: may a query of one group see earlier keys of another?
        shared_counter: one position counter in arrival order for both groups, or one per group.
        phi: added to every target position (GPE, arXiv 2505.16983, section 4).
    """

    name: str
    attends: tuple[tuple[bool, bool], tuple[bool, bool]]
    shared_counter: bool
    phi: int = 0

    @property
    def shares_source(self) -> bool:
        """Whether the source encoding is independent of the target, so that views can share it."""
        return not self.attends[Group.SOURCE][Group.TARGET]

    def position(self, group: Group, num_source: int, num_target: int) -> int:
        """Position of the next token of a group.

        Args:
            group: the token's group.
            num_source: source tokens that arrived before it.
            num_target: target tokens that arrived before it.

        Returns:
            The position id, from 0.
        """
        offset = self.phi if group is Group.TARGET else 0
        if self.shared_counter:
            return offset + num_source + num_target
        return offset + (num_target if group is Group.TARGET else num_source)


def grouped(phi: int = 0) -> Layout:
    """Group position encoding: a counter per group, source sees source, target sees both.

    Args:
        phi: first target position, 0 or more.

    Returns:
        The layout.

    Raises:
        ValueError: if phi is negative.
    """
    return _layout("grouped", ((True, False), (True, True)), False, phi)


def interleaved(phi: int = 0) -> Layout:
    """One counter in arrival order; every token sees everything that arrived earlier.

    Args:
        phi: added to target positions, 0 or more.

    Returns:
        The layout.

    Raises:
        ValueError: if phi is negative.
    """
    return _layout("interleaved", ((True, True), (True, True)), True, phi)


LAYOUTS = {"grouped": grouped, "interleaved": interleaved}


def make_layout(name: str, phi: int = 0) -> Layout:
    """The layout of that name.

    Args:
        name: a key of LAYOUTS.
        phi: added to target positions.

    Returns:
        The layout.

    Raises:
        ValueError: if the name is unknown or phi negative.
    """
    if name not in LAYOUTS:
        raise ValueError(f"unknown layout {name!r}; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name](phi)


def _layout(
    name: str,
    attends: tuple[tuple[bool, bool], tuple[bool, bool]],
    shared_counter: bool,
    phi: int,
) -> Layout:
    if phi < 0:
        raise ValueError(f"phi must be 0 or more, got {phi}")
    return Layout(name=name, attends=attends, shared_counter=shared_counter, phi=phi)
