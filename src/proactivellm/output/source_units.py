"""What the units of a text are: of a source, what one READ takes in, live and of whole texts alike;
of a target, what is shown, timed and decided on as one.

White space separates units, and a character of a script without spaces (Chinese, Japanese, Thai,
...) is a unit of its own, no matter what stands beside it:

- A Chinese character or kana is complete as soon as it is there.
- A character of Thai, Lao, Tibetan, Burmese, Khmer, ... has its marks with it (vowels and tones
  above and below, subscript letters, punctuation), and is complete when something else follows.
- Whatever else follows such a character without white space is a unit up to the next one, and
  full-width punctuation is one apart: "我用GPT。好" has 我, 用, GPT, 。 and 好. What follows
  full-width punctuation without a letter between, closing quotes above all, belongs to it.

What stands between white space and the first character of such a script is a unit, full-width
punctuation included ("GPT。好" has GPT。 and 好): a text without such characters has the units of
`str.split()`, also if it has such punctuation, as Korean may. Nothing is ever cut by what
comes later than the next character: a text has the same units however it arrives.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from proactivellm.output.scripts import HAN, KANA, WITHOUT_SPACES, has_unspaced

_AT_ONCE = re.compile(f"[{HAN}{KANA}]")
_UNSPACED = re.compile(f"[{HAN}{KANA}{WITHOUT_SPACES}]")
# The vowel AM of Thai and Lao is a letter to Unicode, and stands above the one before it.
_OTHER_MARKS = "\u0e33\u0eb3\u0300-\u036f\u200b-\u200d\u2060\ufe00-\ufe0f"
_MARKS = _OTHER_MARKS + "".join(
    character
    for character in map(chr, [*range(0x0E00, 0x1C00), *range(0xA980, 0xAA80)])
    if re.match(f"[{WITHOUT_SPACES}]", character) and unicodedata.category(character)[0] in "MP"
)
_STACKING = "\u1039\u17d2\u1a60\u1b44\ua9c0"  # the letter after one stands below that before it
_FULL_WIDTH = (
    "\u3001-\u3004\u3008-\u3020\u3030\u303d-\u303f\ufe10-\ufe19\ufe30-\ufe4f"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
_BESIDE_FULL_WIDTH = "\"'”’“‘…—"
_EAST = re.compile(f"[{HAN}{KANA}{_FULL_WIDTH}]")
_BEGINS = re.compile(rf"\s|(?![{_MARKS}])[{HAN}{KANA}{WITHOUT_SPACES}{_FULL_WIDTH}]")
_JOINERS = "\u200b\u200c\u200d\u2060"
# Marks or punctuation in a unit at most; no text has so many, and what arrives by character is cut
# anew with each as long as its unit may go on.
_MOST = "{0,31}"
_UNITS = re.compile(
    f"[{HAN}{KANA}]"
    f"|[{WITHOUT_SPACES}](?:[{_STACKING}][{WITHOUT_SPACES}]|[{_MARKS}]){_MOST}"
    f"|[{_FULL_WIDTH}][{_FULL_WIDTH}{_BESIDE_FULL_WIDTH}]{_MOST}"
    f"|[^{HAN}{KANA}{WITHOUT_SPACES}{_FULL_WIDTH}]+"
)


class SourceUnit(NamedTuple):
    """The text of a unit, without white space."""

    text: str
    glued: bool = False  # to the one before: no white space is between them


def source_units(text: str, glued: bool = False) -> list[SourceUnit]:
    """The units of a text; `glued` says whether it goes on, without white space, after others."""
    if not glued and not has_unspaced(text):
        return [SourceUnit(word) for word in text.split()]
    glued = glued and not text[:1].isspace()
    units = []
    for word in text.split():
        units += _cut(word, glued)
        glued = False
    return units


def arrived_units(text: str, glued: bool) -> tuple[list[SourceUnit], SourceUnit]:
    """The units of a text that arrives which are complete, and what there is of the next one.

    Args:
        glued: as for `source_units`.
    """
    units = source_units(text, glued)
    if not text or text[-1].isspace():
        return units, SourceUnit("", glued and not text)
    if _AT_ONCE.fullmatch(units[-1].text):
        return units, SourceUnit("", glued=True)
    return units[:-1], units[-1]


def joined(units: Iterable[SourceUnit]) -> str:
    """The text of units; what white space there was is single spaces."""
    return "".join(text if glued else f" {text}" for text, glued in units).removeprefix(" ")


def joined_texts(texts: Iterable[str]) -> str:
    """Texts one after the other, with what white space there is between them; see `seam`."""
    whole = last = ""
    for text in filter(None, texts):
        whole += (seam(last, text) if whole else "") + text
        last = text
    return whole


def seam(before: str, after: str) -> str:
    """The white space between two texts: a space, but none where both are Chinese or Japanese.

    They have none between sentences either. Thai, Khmer and others have, though none between words.
    """
    last = before.rstrip().rstrip(_BESIDE_FULL_WIDTH)[-1:]
    first = after.lstrip().lstrip(_BESIDE_FULL_WIDTH)[:1]
    if not (_EAST.match(last) or _EAST.match(first)):
        return " "
    # A quarter, as sentences are short, and names in them long: "Tom哭了。"
    num_letters = sum(map(str.isalpha, before + after))
    return "" if 4 * len(_AT_ONCE.findall(before + after)) > num_letters else " "


def begins_unit(text: str) -> bool:
    """Whether a text begins a unit, whatever stands before it.

    It does so with white space, full-width punctuation, or a character of a script without spaces,
    unless that is a mark of the character before.
    """
    return _BEGINS.match(text) is not None


def is_mark(character: str) -> bool:
    """Whether a character belongs to the one before: an accent, a vowel sign, a tone, a joiner."""
    return unicodedata.category(character)[0] == "M" or character in _JOINERS


def pieces_of(text: str) -> list[str]:
    """A text unit by unit, each with the space after it: what is sent where units keep a pace."""
    units = source_units(text)
    glues = [*(unit.glued for unit in units[1:]), False]
    return [text if glue else f"{text} " for (text, _), glue in zip(units, glues, strict=False)]


def words_with_space(text: str) -> list[str]:
    """A text, be it the middle of one, cut before the white space and the beginning of each word.

    Characters of scripts without spaces are words.
    """
    words = []
    for space, word in re.findall(r"(\s*)(\S*)", text):
        first, *others = [unit.text for unit in _cut(word, glued=True)] or [""]
        words += [space + first, *others] if space + first else []
    return words


def _cut(word: str, glued: bool) -> list[SourceUnit]:
    """The units of a text without white space."""
    if word.isascii():
        return [SourceUnit(word, glued)] if word else []
    start = 0
    if not glued:
        first = _UNSPACED.search(word)
        start = first.start() if first else len(word)
    texts = [word[:start]] * bool(start) + _UNITS.findall(word, start)
    return [SourceUnit(text, glued or place > 0) for place, text in enumerate(texts)]
