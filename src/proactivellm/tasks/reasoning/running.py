"""Running counts, generated: who has how many of something, told among other things.

"How many apples does Anna have at the end?" is read first, then sentences of which some change the
count and the others are fillers. Which is which can be told from the question and the sentence
alone, so that a model can learn when to think.
"""

import operator
import random
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from proactivellm.tasks.lookup import NAMES, RELATIONS, SPLITS
from proactivellm.tasks.reasoning.problem import Problem

_PEOPLE = tuple(name.capitalize() for name in NAMES)
_THINGS = "apples books cards coins eggs flowers keys marbles pens shells stamps tickets".split()
_PROPER = (RELATIONS[0], RELATIONS[5])  # cities, languages
_TRIES = 1000  # most draws for a problem: nine of ten are of other splits

# What changes a count, with the sign of the change: of {who}, and then of {another}.
_CHANGES = (
    ("{who} buys {n} more {thing}.", "+"),
    ("{who} finds {n} {thing}.", "+"),
    ("{other} gives {n} {thing} to {who}.", "+"),
    ("{who} loses {n} {thing}.", "-"),
    ("{who} sells {n} {thing}.", "-"),
    ("{who} gives {n} {thing} to {other}.", "-"),
)
_SCALES = (
    ("The {thing} of {who} double in number.", "*"),
    ("{who} loses half of the {thing}.", "/"),
)
_EXCHANGE = ("{who} gives {n} {thing} to {another}.", "-+")
_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    **{"+": operator.add, "-": operator.sub},
    **{"*": operator.mul, "/": operator.floordiv},
}


class Level(NamedTuple):
    """How hard the problems are."""

    events: tuple[int, int]  # least and most sentences that change the count, after the first ones
    fillers: float  # share of all sentences, below 1
    near: float  # share of the fillers with the thing or a person that is asked about
    people: int  # whose things are asked for, together
    scales: bool  # whether counts are doubled and halved
    most: int = 99  # of a thing that somebody can have, at least 4


LEVELS = {
    "easy": Level((1, 3), 0.4, 0.0, 1, False),
    "medium": Level((3, 5), 0.5, 0.4, 1, False),
    "hard": Level((5, 8), 0.5, 0.5, 2, True),
}


def draw_running(
    level: Level, count: int, seed: int = 0, split: str = "train", idle: float = 0.0
) -> list[Problem]:
    """Problems of one split; no source occurs twice in it, nor in another split, whatever seeds.

    Args:
        level: one of `LEVELS`, or another.
        split: "train", "valid" or "test", whose sources have the checksums of its tenths.
        idle: share of the fillers that have a thought, which says that nothing has changed: what a
            model may learn to skip.

    Raises:
        ValueError: the level or the split is impossible, or has not so many problems.
    """
    _check(level, split, idle)
    rng = random.Random(f"running {split} {seed}")
    seen: set[str] = set()
    problems: list[Problem] = []
    while len(problems) < count:
        for _ in range(_TRIES):
            problem = _draw_one(level, rng, idle, f"running-{split}-{seed}-{len(problems)}")
            source = problem.item().source
            if zlib.crc32(source.encode()) % 10 in SPLITS[split] and source not in seen:
                break
        else:
            raise ValueError(f"running: the level has fewer than {count} problems: {level}")
        seen.add(source)
        problems.append(problem)
    return problems


def _check(level: Level, split: str, idle: float) -> None:
    if split not in SPLITS:
        raise ValueError(f"running: {split!r} is no split: give one of {', '.join(SPLITS)}")
    if not 0 <= level.events[0] <= level.events[1]:
        raise ValueError(f"running: events {level.events}: give least and most, from 0")
    if level.most < 4:
        raise ValueError(f"running: most {level.most}: let somebody have 4 or more of a thing")
    if not 1 <= level.people <= 4:
        raise ValueError(f"running: {level.people} people: ask for 1 to 4")
    for name, share in (("fillers", level.fillers), ("near", level.near), ("idle", idle)):
        if not 0 <= share <= 1 or (name == "fillers" and share > 0.9):
            raise ValueError(f"running: {name} {share}: give a share from 0 to 1 (fillers: 0.9)")


def _draw_one(level: Level, rng: random.Random, idle: float, name: str) -> Problem:
    story = _Story(level, rng)
    num_events = level.people + rng.randint(*level.events)
    num_fillers = round(num_events * level.fillers / (1 - level.fillers))
    kinds = [True] * num_events + [False] * num_fillers
    rng.shuffle(kinds)
    told = [story.event() if needed else story.filler(idle) for needed in kinds]
    return Problem(
        id=name,
        question=story.question,
        sentences=tuple(sentence for sentence, _ in told),
        thoughts=tuple(thought for _, thought in told),
        integration=story.integration,
        reflection=f"Check: {'; '.join(story.equations)}." if story.equations else "",
        answer=str(sum(story.counts.values())),
        needed=tuple(kinds),
    )


class _Story:
    """Who has how many so far; each sentence comes with its thought."""

    def __init__(self, level: Level, rng: random.Random) -> None:
        self.rng = rng
        self.level = level
        people = rng.sample(_PEOPLE, len(_PEOPLE))
        self.asked, self.others = people[: level.people], people[level.people :]
        self.thing, *self.things = rng.sample(_THINGS, len(_THINGS))
        self.counts: dict[str, int] = {}  # of those who are asked about and were met
        self.equations: list[str] = []  # of all thoughts

    @property
    def question(self) -> str:
        if len(self.asked) == 1:
            return f"How many {self.thing} does {self.asked[0]} have at the end?"
        people = " and ".join(self.asked)
        return f"How many {self.thing} do {people} have together at the end?"

    @property
    def integration(self) -> str:
        """What everybody has at the end, and together."""
        have = " and ".join(f"{who} has {count}" for who, count in self.counts.items())
        if len(self.counts) == 1:
            return f"{have} {self.thing} at the end."
        total = " + ".join(map(str, self.counts.values()))
        return f"{have}, and {total} = {sum(self.counts.values())}."

    def event(self) -> tuple[str, str]:
        """The next sentence that changes a count: everybody who is asked about is met first."""
        for who in self.asked[len(self.counts) :]:
            self.counts[who] = self.rng.randint(2, self.level.most // 2)
            found = f"{who} has {self.counts[who]} {self.thing}."
            return found, found
        changes = _CHANGES + (_SCALES if self.level.scales else ())
        changes += (_EXCHANGE,) if len(self.asked) > 1 else ()
        while True:  # to gain or to lose some is always possible
            who, another = (*self.rng.sample(self.asked, len(self.asked)), "")[:2]
            text, signs = self.rng.choice(changes)
            most = min(20, self.level.most // 2)
            number = 2 if signs in "*/" else self.rng.randint(2, most)
            steps = [(person, sign) for person, sign in zip((who, another), signs, strict=False)]
            if all(self._possible(person, sign, number) for person, sign in steps):
                names = {"who": who, "another": another, "other": self.rng.choice(self.others)}
                sentence = text.format(**names, n=number, thing=self.thing)
                return sentence, " ".join(self._count(*step, number) for step in steps)

    def filler(self, idle: float) -> tuple[str, str]:
        """The next sentence that changes nothing; the thought, if any, says so."""
        near = self.rng.random()
        other, another = self.rng.sample(self.others, 2)
        number = self.rng.randint(2, 40)
        if near < self.level.near / 2:
            does = self.rng.choice(("buys {} more {}", "sells {} {}", "gives {} {} to " + another))
            sentence = f"{other} {does.format(number, self.thing)}."
        elif near < self.level.near:
            does = self.rng.choice(("has {} {}", "buys {} more {}", "loses {} {}"))
            who = self.rng.choice(self.asked)
            sentence = f"{who} {does.format(number, self.rng.choice(self.things))}."
        else:
            what = self.rng.choice(RELATIONS[:-1])  # the last is what somebody "has"
            value = self.rng.choice(what.values)
            value = value.capitalize() if what in _PROPER else value
            sentence = what.fact.format(other, value).replace(" .", ".")
        return sentence, self._idle() if self.rng.random() < idle else ""

    def _idle(self) -> str:
        if not self.counts:
            return f"Nothing is said of the {self.thing}."
        have = " and ".join(f"{who} still has {count}" for who, count in self.counts.items())
        return f"{have} {self.thing}."

    def _possible(self, who: str, sign: str, number: int) -> bool:
        exact = sign != "/" or self.counts[who] % number == 0
        after = _OPERATIONS[sign](self.counts[who], number)
        return exact and 0 <= after <= self.level.most and after != 1  # 1 keys

    def _count(self, who: str, sign: str, number: int) -> str:
        """Changes a count, and says how."""
        before = self.counts[who]
        after = self.counts[who] = _OPERATIONS[sign](before, number)
        self.equations.append(f"{before} {sign} {number} = {after}")
        return f"{self.equations[-1]}, so {who} has {after} {self.thing}."
