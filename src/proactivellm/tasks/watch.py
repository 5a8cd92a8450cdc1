"""Watching, generated: "tell me when ...", then a stream of reports among other text.

The model is to be silent until a report says that it has happened, and then to speak at once; it
can happen more than once, or never. Every alert begins with what only the report knows, and other
reports of the same differ from it until its last word, so that nothing can be said before that.
"""

import random
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from proactivellm.tasks.item import Item
from proactivellm.tasks.lookup import NAMES, RELATIONS, SPLITS

_PEOPLE = tuple(name.capitalize() for name in NAMES)
_CITIES = tuple(city.capitalize() for city in RELATIONS[0].values)
_NUMBERS = tuple(str(number) for number in range(11, 99))
_SUBJECTS = tuple("parcel invoice contract garden roof boiler ticket holiday loan party".split())
_ROOMS = tuple("kitchen cellar library workshop greenhouse garage office nursery".split())
_MACHINES = tuple("mixer press crane pump lift drill oven conveyor turbine saw".split())
_PARTS = tuple("belt valve fuse sensor motor switch filter bearing cable brake hose gear".split())
_LOTS = tuple("vase clock chair mirror piano carpet painting lamp desk violin".split())


class Kind(NamedTuple):
    """Something that can be watched for: {} is of whom or what, {detail} only the report knows."""

    request: str
    report: str
    alert: str  # begins with the detail
    other: str  # a report of the same {}, of something else
    subjects: tuple[str, ...]
    details: tuple[str, ...] = _NUMBERS


KINDS = (
    Kind(
        "the train to {} is late",
        "The train to {} is {detail} minutes late.",
        "{detail} minutes late: the train to {}.",
        "The train to {} is {detail} minutes early.",
        _CITIES,
    ),
    Kind(
        "the flight to {} boards",
        "The flight to {} boards at gate {detail}.",
        "{detail} is the gate: the flight to {}.",
        "The flight to {} will board in {detail} minutes.",
        _CITIES,
    ),
    Kind(
        "{} calls",
        "{} calls about the {detail}.",
        "{detail}: {} calls.",
        "{} has written about the {detail}.",
        _PEOPLE,
        _SUBJECTS,
    ),
    Kind(
        "{} arrives",
        "{} arrives in car {detail}.",
        "{detail} is the car: {} arrives.",
        "{} leaves in car {detail}.",
        _PEOPLE,
    ),
    Kind(
        "the {} is too warm",
        "The {} is at {detail} degrees, which is too warm.",
        "{detail} degrees: the {} is too warm.",
        "The {} is at {detail} degrees, which is too cold.",
        _ROOMS,
    ),
    Kind(
        "the {} stops",
        "The {} stops because of a broken {detail}.",
        "{detail} broken: the {} stops.",
        "The {} runs again with a new {detail}.",
        _MACHINES,
        _PARTS,
    ),
    Kind(
        "somebody bids for the {}",
        "Somebody bids {detail} pounds for the {}.",
        "{detail} pounds: a bid for the {}.",
        "Nobody wants the {} for {detail} pounds.",
        _LOTS,
    ),
)

SENTENCES = (6, 14)  # least and most of them after the request
MAX_EVENTS = 2
DISTRACTORS = 0.4  # share of the other sentences that are reports of something else
LONGEST = 30  # words of a background sentence


class Watch(NamedTuple):
    """A generated request with its stream."""

    source: str  # the request, then reports and other text
    alerts: tuple[str, ...]  # in the order of their reports; often none
    # Units (words) of the source up to and including the last that an alert needs, of each alert.
    evidence: tuple[int, ...]

    @property
    def item(self) -> Item:
        """As an item of a task: the alerts on one line, which is empty if nothing happens.

        Its delays are those of one who speaks at once.
        """
        told = zip(self.alerts, self.evidence, strict=True)
        delays = tuple(units for alert, units in told for _ in alert.split())
        return Item(self.source, " ".join(self.alerts), delays=delays)


def draw_watches(
    count: int,
    seed: int = 0,
    split: str = "train",
    background: Iterable[str] = (),
    sentences: tuple[int, int] = SENTENCES,
) -> list[Watch]:
    """Requests of one split; no stream occurs twice in it, nor in another split.

    Args:
        split: "train", "valid" or "test", whose streams have the checksums of its tenths.
        background: sentences of other text, one a line; a split takes its tenths of them. None:
            all other sentences are reports.
        sentences: least (2) and most of them after the request.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"watch: {split!r} is no split: give one of {', '.join(SPLITS)}")
    lines = [line for line in map(str.split, background) if 0 < len(line) <= LONGEST]
    own = [" ".join(line) for i, line in enumerate(lines) if i % 10 in SPLITS[split]]
    rng = random.Random(f"watch {split} {seed}")
    seen: set[str] = set()
    watches: list[Watch] = []
    while len(watches) < count:
        watch = _draw_one(rng, own, sentences)
        if zlib.crc32(watch.source.encode()) % 10 in SPLITS[split] and watch.source not in seen:
            seen.add(watch.source)
            watches.append(watch)
    return watches


def _draw_one(rng: random.Random, background: Sequence[str], bounds: tuple[int, int]) -> Watch:
    """Draws sentences that are no event, then puts the events in the places of some."""
    kind = rng.choice(KINDS)
    subject = rng.choice(kind.subjects)
    sentences = [
        rng.choice(background)
        if background and rng.random() >= DISTRACTORS
        else _distractor(rng, kind, subject)
        for _ in range(rng.randint(*bounds))
    ]
    details = {
        place: rng.choice(kind.details)
        for place in sorted(rng.sample(range(len(sentences)), rng.randint(0, MAX_EVENTS)))
    }
    for place, detail in details.items():
        sentences[place] = kind.report.format(subject, detail=detail)
    told = [f"Tell me when {kind.request.format(subject)}.", *sentences]
    return Watch(
        " ".join(told),
        tuple(_alert(kind, subject, detail) for detail in details.values()),
        tuple(_needed(told[: place + 2]) for place in details),
    )


def _alert(kind: Kind, subject: str, detail: str) -> str:
    text = kind.alert.format(subject, detail=detail)
    return text[0].upper() + text[1:]


def _needed(told: Sequence[str]) -> int:
    """Units up to the end of the last sentence, which may still say something else before it."""
    return sum(len(sentence.split()) for sentence in told)


def _distractor(rng: random.Random, kind: Kind, subject: str) -> str:
    """A report that the request does not ask for, half of them of its subject or of its kind."""
    near = rng.random()
    if near < 0.25:
        return kind.other.format(subject, detail=rng.choice(kind.details))
    if near < 0.5:
        others = [other for other in kind.subjects if other != subject]
        return kind.report.format(rng.choice(others), detail=rng.choice(kind.details))
    far = rng.choice([other for other in KINDS if other != kind])
    said = rng.choice((far.report, far.other))
    return said.format(rng.choice(far.subjects), detail=rng.choice(far.details))
