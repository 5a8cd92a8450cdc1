"""Lookup questions, generated: a question, then a stream of facts of which one may answer it.

The answer can stand anywhere in the stream. A model that reads while it writes may answer as soon
as the evidence is in; "unknown" can be known at the end of the source only, because what comes
before the evidence is drawn alike whether the question has an answer or not.
"""

import random
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from proactivellm.tasks.item import Item

UNKNOWN = "unknown"
SPLITS = {"train": range(8), "valid": range(8, 9), "test": range(9, 10)}  # tenths of all sources

NAMES = tuple(
    """adam alice anna arthur bella ben carl carol cecil clara daisy dan david diana edgar ella emil
    emma eric eva felix fiona frank gina greta hanna harry helen henry hugo ida igor ines iris jack
    jane john julia karl kate kim laura leo lily linda lucas maria mark mia nina noah nora olga
    oscar otto paul peter rosa ruth sam sara tom vera walter""".split()
)
_COLOURS = "black blue beige brown golden green grey pink purple red silver white yellow".split()
_THINGS = """bag ball bed belt bike boat book bottle box bowl car chair clock coat cup hat key kite
    knife lamp mirror phone pot ring rope scarf shirt sofa table umbrella""".split()


class Relation(NamedTuple):
    """Something that a fact can say of a person."""

    question: str  # with {} for the person
    fact: str  # with {} for the person and {} for the value
    values: tuple[str, ...]  # at least 30


def _relation(question: str, fact: str, values: str) -> Relation:
    return Relation(question, fact, tuple(values.split()))


RELATIONS = (
    _relation(
        "where does {} live ?",
        "{} lives in {} .",
        """athens berlin bonn boston bristol cairo chicago delhi denver dublin geneva genoa hamburg
        havana houston kyoto lagos leeds lima lisbon london madrid milan moscow munich nairobi
        naples oslo oxford paris porto prague quito riga rome seoul sydney tokyo turin vienna""",
    ),
    _relation(
        "what does {} eat ?",
        "{} eats {} .",
        """apples bacon bananas beans beef berries bread butter cabbage cake carrots cheese cherries
        chicken chocolate corn eggs fish grapes ham honey jam lemons lentils mangos melons mushrooms
        noodles nuts olives onions pasta peaches pears peas plums rice salad soup tomatoes""",
    ),
    _relation(
        "what does {} play ?",
        "{} plays {} .",
        """badminton banjo baseball basketball bingo bowling bridge cards cello chess clarinet
        cricket darts dice dominoes drums flute football golf guitar harp hockey lacrosse lotto
        oboe organ piano poker polo rugby skittles snooker squash tennis trombone trumpet tuba
        viola violin volleyball""",
    ),
    _relation(
        "what does {} work as ?",
        "{} works as a {} .",
        """baker barber brewer builder butcher butler carpenter chemist clerk coach cook dancer
        dentist doctor driver farmer fisher gardener grocer guard hunter judge lawyer
        librarian mason mechanic miller miner nurse painter pilot plumber poet printer sailor
        singer tailor teacher waiter""",
    ),
    _relation(
        "what does {} keep ?",
        "{} keeps a {} .",
        """bear bee camel canary cat chick cow crab crow deer dog donkey dove duck
        falcon ferret fox frog goat goose hamster hare hawk hen horse lamb lion lizard monkey mouse
        parrot pig pony rabbit raven robin seal sheep snake swan tiger turtle wolf zebra""",
    ),
    _relation(
        "what does {} speak ?",
        "{} speaks {} .",
        """albanian arabic armenian basque bengali breton bulgarian burmese catalan chinese czech
        danish dutch english estonian finnish french german greek hebrew hindi hungarian icelandic
        irish italian japanese korean latin latvian maltese mongolian norwegian persian polish
        portuguese romanian russian serbian spanish swahili swedish tamil thai turkish welsh""",
    ),
    _relation(
        "what does {} grow ?",
        "{} grows {} .",
        """asters barley basil birches cactuses clover cotton crocuses daffodils dahlias ferns figs
        garlic ginger heather herbs hops irises ivy larches lavender leeks lilies lupins maples mint
        oats orchids palms parsley poppies pumpkins radishes roses rye sage spinach thyme tulips
        turnips violets wheat willows""",
    ),
    Relation(
        "what does {} have ?",
        "{} has a {} .",
        tuple(f"{colour} {thing}" for colour in _COLOURS for thing in _THINGS),
    ),
)


class Level(NamedTuple):
    """How hard the questions are."""

    facts: tuple[int, int]  # least and most facts of a stream
    # Share of the other facts that are about the person asked about; fewer where there is nothing
    # more to say of that person.
    same_person: float
    same_relation: float  # share of the other facts that say of others what is asked
    unknown: float  # share of the questions without an answer
    recites: bool = False  # whether everything is asked at once, see `_draw_recital`


LEVELS = {
    "easy": Level((4, 6), 0.0, 0.0, 0.1),
    "medium": Level((8, 12), 0.25, 0.25, 0.15),
    "hard": Level((16, 24), 0.25, 0.4, 0.25),
    "recital": Level((4, 8), 0.0, 0.0, 0.0, recites=True),  # for training only
}


class Lookup(NamedTuple):
    """A generated question with its stream."""

    source: str  # the question, then the facts
    target: str  # the answer, one or two words
    # Units (words) of the source up to and including the answer's first word; all of them where the
    # answer is "unknown".
    evidence: int

    @property
    def item(self) -> Item:
        """As an item of a task; its delays are those of one who answers at once."""
        delays = (self.evidence,) * len(self.target.split())
        return Item(self.source, self.target, (self.target,), delays=delays)


def draw(levels: Sequence[str], count: int, seed: int = 0, split: str = "train") -> list[Lookup]:
    """Questions of one split; no source occurs twice in it, nor in another split, whatever seeds.

    Levels take turns. A split ("train", "valid" or "test") has the sources whose checksum falls
    into its tenths. Unknown levels and splits raise a ValueError.
    """
    for name in levels:
        if name not in LEVELS:
            raise ValueError(f"lookup level {name!r} is unknown: give one of {', '.join(LEVELS)}")
    if not levels or split not in SPLITS:
        raise ValueError(f"lookup: give a level, and of the splits {', '.join(SPLITS)} one")
    rng = random.Random(f"lookup {split} {seed}")
    seen: set[str] = set()
    questions: list[Lookup] = []
    for i in range(count):
        level = LEVELS[levels[i % len(levels)]]
        for question in _endless(level, rng):
            # The hash of Python would put a source into another split in every process.
            checksum = zlib.crc32(question.source.encode())
            if checksum % 10 in SPLITS[split] and question.source not in seen:
                seen.add(question.source)
                questions.append(question)
                break
    return questions


def _endless(level: Level, rng: random.Random) -> Iterator[Lookup]:
    while True:
        yield _draw_recital(level, rng) if level.recites else _draw_one(level, rng)


def _draw_one(level: Level, rng: random.Random) -> Lookup:
    """Draws facts that do not answer, then puts the evidence, if any, in the place of one."""
    person, relation = rng.choice(NAMES), rng.choice(RELATIONS)
    facts = _other_facts(level, person, relation, rng)
    question = relation.question.format(person)
    answer, place = UNKNOWN, len(facts)
    if rng.random() >= level.unknown:
        answer, place = rng.choice(relation.values), rng.randrange(len(facts))
        facts[place] = relation.fact.format(person, answer)
    before = " ".join([question, *facts[:place]]).split()
    evidence = len(before)
    if place < len(facts):
        evidence += facts[place].split().index(answer.split()[0]) + 1
    return Lookup(" ".join([question, *facts]), answer, evidence)


def _draw_recital(level: Level, rng: random.Random) -> Lookup:
    """Asks for the facts of all persons, to be told in random order, each after the person's name.

    One answer per stream is little to learn looking up from; this asks for many.
    """
    people = rng.sample(NAMES, rng.randint(*level.facts))
    told = [(who, what := rng.choice(RELATIONS), rng.choice(what.values)) for who in people]
    facts = " ".join(what.fact.format(who, value) for who, what, value in told)
    rng.shuffle(told)
    source = f"what do all do ? {facts}"
    return Lookup(source, " ".join(f"{w} {value}" for w, _, value in told), len(source.split()))


def _other_facts(level: Level, person: str, relation: Relation, rng: random.Random) -> list[str]:
    """Facts that do not answer the question; none says of a person the same thing twice."""
    told = {(person, relation)}
    facts = []
    for _ in range(rng.randint(*level.facts)):
        fact = (person, relation)
        while fact in told:
            kind = rng.random()
            who, what = rng.choice(NAMES), rng.choice(RELATIONS)
            if kind < level.same_person:
                who = person
            elif kind < level.same_person + level.same_relation:
                what = relation
            fact = who, what
        told.add(fact)
        who, what = fact
        facts.append(what.fact.format(who, rng.choice(what.values)))
    return facts
