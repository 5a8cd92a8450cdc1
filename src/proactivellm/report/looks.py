"""Colours, markers and dashes: a policy looks the same in every picture and on every page."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from proactivellm.report.points import is_offline, split_family

INK, FAINT, GRID = "#333333", "#767B84", "#D9DDE3"
WRITE, HELD, UNREAD, SEEN, NEW = "#D55E00", "#8A919C", "#F4F5F7", "#CFE3F3", "#6AAEDB"
HEAT = ("#EAF2F9", "#08519C")  # no attention, all of it
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, BLACK = COLOURS = (
    # Okabe and Ito: told apart by colour-blind readers too.
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
)
# As matplotlib calls them, and as SVG draws them about the origin, in pixels.
MARKERS: Mapping[str, str] = {
    "o": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "s": "M-4.5-4.5h9v9h-9z",
    "D": "M0-6L6 0L0 6L-6 0z",
    "^": "M0-6L5.5 4.5h-11z",
    "v": "M0 6L5.5-4.5h-11z",
    "P": "M-2-5.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5z",
    "X": "M0-3l3-3 3 3-3 3 3 3-3 3-3-3-3 3-3-3 3-3-3-3 3-3z",
}
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2.5), (1.5, 2))  # on, off, in line widths

_OF_POLICY = {
    "wait-k": (BLUE, "o"),
    "entropy": (VERMILION, "s"),
    "attention": (GREEN, "D"),
    "local-agreement": (PINK, "^"),
    "confidence": (ORANGE, "v"),
    "alignatt": (SKY, "P"),
    "hold-n": (BLACK, "X"),
}
_SPARE = [(c, m) for m in ("X", "P", "v", "^", "D", "s", "o") for c in COLOURS]


class Look(NamedTuple):
    """How a line is drawn; `hollow` markers and dashes tell arms apart."""

    colour: str
    marker: str
    dash: tuple[float, ...] = ()
    hollow: bool = False


def looks(families: Iterable[str]) -> dict[str, Look]:
    """The look of each family of a picture.

    Policies have a colour and a marker each, and up to three arms a dash each. More arms than
    dashes have a colour each, and policies only a marker.
    """
    names = [name for name in families if not is_offline(name)]
    arms, policies = (list(dict.fromkeys(parts)) for parts in _sides(names))
    spare = iter([look for look in _SPARE if look not in _OF_POLICY.values()])
    of_policy = {name: _OF_POLICY.get(name) or next(spare) for name in policies}
    found = {}
    for name in names:
        arm, policy = split_family(name)
        number, (colour, marker) = arms.index(arm), of_policy[policy]
        if are_many(names):
            colour, number = COLOURS[number % len(COLOURS)], number // len(COLOURS)
        number %= len(DASHES)
        found[name] = Look(colour, marker, DASHES[number], number > 0)
    return found


def are_many(families: Iterable[str]) -> bool:
    """Whether there are more arms than dashes can tell apart."""
    return len(set(_sides(families)[0])) > len(DASHES)


def _sides(families: Iterable[str]) -> tuple[list[str], list[str]]:
    parts = [split_family(name) for name in families]
    return [arm for arm, _ in parts], [policy for _, policy in parts]
