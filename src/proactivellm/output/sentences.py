"""Where sentences end, judged by the last characters of a text alone."""

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
