"""What a text tells: its numbers, in digits and words, and its content words.

From this it is decided what must have been read before something can be said.
"""

import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from proactivellm.output.scripts import has_unspaced

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
_TEENS = "fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS: dict[str, tuple[Fraction, ...]] = {
    **{word: (Fraction(i),) for i, word in enumerate(f"{_UNITS} {_TEENS}".split())},
    **{word: (Fraction(10 * i),) for i, word in enumerate(_TENS.split(), start=2)},
    **dict.fromkeys("twice double doubled doubles couple pair both second".split(), (Fraction(2),)),
    **dict.fromkeys("triple tripled triples thrice".split(), (Fraction(3),)),
    **dict.fromkeys(("half", "halves", "halved"), (Fraction(1, 2), Fraction(2))),
    **dict.fromkeys(("third", "thirds"), (Fraction(1, 3), Fraction(3))),
    **dict.fromkeys(
        ("quarter", "quarters", "fourth", "fourths"), (Fraction(1, 4), Fraction(4), Fraction(25))
    ),
    **dict.fromkeys(("fifth", "fifths"), (Fraction(1, 5), Fraction(5))),
    **dict.fromkeys(("sixth", "sixths"), (Fraction(1, 6), Fraction(6))),
    **dict.fromkeys(("eighth", "eighths"), (Fraction(1, 8), Fraction(8))),
    **dict.fromkeys(("tenth", "tenths"), (Fraction(1, 10), Fraction(10))),
    **dict.fromkeys(("dozen", "dozens"), (Fraction(12),)),
    **dict.fromkeys(("hundred", "hundreds"), (Fraction(100),)),
    **dict.fromkeys(("thousand", "thousands"), (Fraction(1000),)),
    **dict.fromkeys(("million", "millions"), (Fraction(1_000_000),)),
}
# What everybody knows: hours, days, weeks, months, feet, percent and so on.
COMMON = frozenset(map(Fraction, "1 7 12 24 30 52 60 100 365 1000 0.01".split()))
_NUMBER = re.compile(
    r"(?P<n>\d[\d,]*(?:\.\d+)?|\.\d+)(?P<over>/\d+(?!\d*[./]))?(?P<unit>\s?(?:%|percent|cents|¢))?"
)
_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?")
# Said everywhere, and in steps of any kind.
_STOP = frozenset(
    """a about after again all already also although altogether am amount an and another any are as
    at be because been before being both but by can check could did do does each earn earns either
    every everyone far few finally find first for from get gets give gives given go goes had has
    have he her here him his how however i if in into is it its just know last left less let make
    makes many means more most much must my need needs new next no nor not now number of on once
    only or other others our out over per place rest same say says she should since so some spend
    spends still such take takes than that the their them then there therefore these they think
    this those thus time times to together total totals twice two under until up us use used using
    very was we were what when where whether which while who whose will with would yet you your
    plus minus divided multiplied equals equal sum difference product answer follows
    holds""".split()
)


def numbers(text: str) -> Counter[Fraction]:
    """The numbers that a text tells, each as often as it does.

    A percentage also tells the share, cents the part of a dollar, "half" a half and two, "3/4"
    three, four, and three quarters; compounds such as "twenty-five" are one number.
    """
    found: Counter[Fraction] = Counter()
    for match in _NUMBER.finditer(text):
        number = Fraction(match["n"].replace(",", ""))
        found[number] += 1
        if match["unit"]:
            found[number / 100] += 1
        if match["over"] and (below := int(match["over"][1:])):
            found[Fraction(below)] += 1
            found[number / below] += 1
    found.update(_in_words(text))
    return found


def _in_words(text: str) -> Iterator[Fraction]:
    words = [word.lower() for word in re.findall(r"[A-Za-z]+", text)]
    for i, word in enumerate(words):
        yield from _WORDS.get(word, ())
        if word in _TENS.split() and i + 1 < len(words):
            units = _WORDS.get(words[i + 1], (Fraction(0),))[0]
            if 0 < units < 10 and units.denominator == 1:
                yield _WORDS[word][0] + units
        if word in ("hundred", "thousand", "million") and i and words[i - 1] in _WORDS:
            yield _WORDS[words[i - 1]][0] * _WORDS[word][0]


def content_words(text: str) -> set[str]:
    """The words that say something, in lower case, without endings of plurals and possessives.

    Texts without spaces have pairs of neighbouring characters in place of words.
    """
    found = set[str]()
    for match in _WORD.finditer(text):
        if has_unspaced(match[0]):
            found.update(map("".join, pairwise(match[0])))
            continue
        word = match[0].lower().removesuffix("'s")
        if len(word) > 2 and word not in _STOP and word not in _WORDS:
            found.add(_stem(word))
    return found


def _stem(word: str) -> str:
    """Without the ending of a plural and a last "e": apples, boxes, berries, wumpuses."""
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("es"):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us")):
        return word[:-1]
    return word.removesuffix("e")
