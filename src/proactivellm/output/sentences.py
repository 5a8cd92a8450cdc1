"""Where sentences end, judged by the last characters of a text alone."""

from collections.abc import Sequence

from proactivellm.output.scripts import characters
from proactivellm.output.source_units import SourceUnit, joined, source_units

# Full stops, question and exclamation marks, ellipses: Latin, Greek, East Asian, Armenian, Arabic,
# Indic, Burmese, Khmer, Tibetan, Ethiopic.
_MARKS = frozenset(".!?…‼⁇⁈⁉\u037e。．｡！？\u0589\u061f\u06d4।॥\u104a\u104b\u17d4\u17d5\u0f0d።፧")
_CLOSING = "\"'”’“‘»«›‹)]}」』】〉》）］｝"  # German closes with “ and «


def ends_sentence(text: str, before: bool = False) -> bool:
    """Whether a text ends a sentence: a mark such as . ! ? 。 and any closing quotes or brackets.

    Nothing else is looked at, so that "Dr." ends one and a line without a mark does not. `before`
    is the answer where there is nothing to judge by: no text, or closing marks alone.
    """
    core = text.rstrip().rstrip(_CLOSING)
    return core[-1] in _MARKS if core else before


def cut_sentences(text: str) -> list[str]:
    """A text cut after each unit that ends a sentence; its white space becomes single spaces."""
    sentences, begun = list[str](), list[SourceUnit]()
    for unit in source_units(text):
        begun.append(unit)
        if ends_sentence(unit.text):
            sentences.append(joined(begun))
            begun = []
    return [*sentences, joined(begun)] if begun else sentences


def places_in(pieces: Sequence[str], units: Sequence[str]) -> list[int]:
    """The place of the unit in which each piece of the same text ends.

    What lies beyond the units, as they do not hold the last words, belongs to the last of them.
    """
    ends = _characters_before(units)
    places = (
        next((place for place, last in enumerate(ends) if end <= last), len(units) - 1)
        for end in _characters_before(pieces)
    )
    return list(places)


def _characters_before(texts: Sequence[str]) -> list[int]:
    """Characters up to the end of each text, white space left out."""
    ends, count = [], 0
    for text in texts:
        count += len(characters(text))
        ends.append(count)
    return ends
