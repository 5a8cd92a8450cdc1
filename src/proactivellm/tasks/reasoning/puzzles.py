"""Small problems of logic, generated: facts and rules in random order, and a statement to judge."""

import random
import zlib
from typing import NamedTuple

from proactivellm.tasks.lookup import NAMES, SPLITS
from proactivellm.tasks.reasoning.english import sentence, tell, tell_rule
from proactivellm.tasks.reasoning.logic import FALSE, TRUE, UNKNOWN, Solved, as_problem, judge
from proactivellm.tasks.reasoning.problem import Problem
from proactivellm.tasks.reasoning.theory import VARIABLE, Fact, Rule, Theory

_PEOPLE = tuple(name.capitalize() for name in NAMES)
_TRAITS = """bold brave calm careful cheerful clever curious eager fair friendly funny gentle happy
    honest kind lazy loud merry modest nice patient polite proud quiet quick rich shy silent small
    strong tall tidy tired wise witty young""".split()
_ANSWERS = (TRUE, FALSE, UNKNOWN)  # they take turns
_QUESTION = "Is the following statement true, false, or unknown?"
_TRIES = 100_000  # most draws for a problem, most of which are of other splits


class Level(NamedTuple):
    """How hard the problems are."""

    people: int
    traits: int  # that facts and rules are about
    facts: int
    rules: int
    depth: tuple[int, int]  # least and most rules one after another that a proof needs
    negated: float  # share of the rules that conclude that something does not hold


LEVELS = {
    "easy": Level(2, 6, 3, 3, (1, 1), 0.5),
    "medium": Level(3, 8, 5, 6, (1, 3), 0.5),
    "hard": Level(4, 10, 7, 9, (3, 5), 0.5),
}


def draw_logic(level: Level, count: int, seed: int = 0, split: str = "train") -> list[Problem]:
    """Problems of one split; no source occurs twice in it, nor in another split, whatever seeds.

    A third of the statements each is true, false and unknown.

    Args:
        level: one of `LEVELS`, or another.
        split: "train", "valid" or "test", whose sources have the checksums of its tenths.

    Raises:
        ValueError: the level or the split is impossible, or has not so many problems.
    """
    if split not in SPLITS:
        raise ValueError(f"logic: {split!r} is no split: give one of {', '.join(SPLITS)}")
    if not (1 <= level.people <= len(_PEOPLE) and 3 <= level.traits <= len(_TRAITS)):
        raise ValueError(
            f"logic: {level.people} people with {level.traits} traits: too few or many"
        )
    rng = random.Random(f"logic {split} {seed}")
    seen: set[str] = set()
    problems: list[Problem] = []
    while len(problems) < count:
        for _ in range(_TRIES):
            statements = _draw_theory(level, rng)
            text = " ".join(map(_tell, statements))
            # Before it is solved, which takes long.
            if zlib.crc32(text.encode()) % 10 not in SPLITS[split] or text in seen:
                continue
            answer = _ANSWERS[len(problems) % len(_ANSWERS)]
            if solved := _solved(level, rng, statements, answer):
                break
        else:
            raise ValueError(f"logic: the level has fewer than {count} problems: {level}")
        seen.add(text)
        asked = f"{_QUESTION} {sentence(tell(solved.statement))}"
        name = f"logic-{split}-{seed}-{len(problems)}"
        problems.append(as_problem(name, asked, [_tell(said) for said in statements], solved))
    return problems


def _draw_theory(level: Level, rng: random.Random) -> list[Fact | Rule]:
    people, traits = rng.sample(_PEOPLE, level.people), rng.sample(_TRAITS, level.traits)
    pairs = [Fact(who, "is", trait) for who in people for trait in traits]
    facts = rng.sample(pairs, min(level.facts, len(pairs)))
    statements: list[Fact | Rule] = [*facts]
    statements += [_rule(level, rng, traits) for _ in range(level.rules)]
    rng.shuffle(statements)
    return statements


def _solved(
    level: Level, rng: random.Random, statements: list[Fact | Rule], answer: str
) -> Solved | None:
    """A statement with this answer; None if there is none, or the theory contradicts itself."""
    theory = Theory(statements)
    if len(set(statements)) < len(statements) or not theory.consistent():
        return None
    holds = rng.random() < 0.5  # else a "not" in the statement would tell the answer
    if answer == UNKNOWN:
        known = {fact._replace(holds=True) for fact in theory.origins}
        people = sorted({fact.subject for fact in known})
        traits = sorted({fact.value for fact in known})
        pairs = [Fact(who, "is", trait) for who in people for trait in traits]
        found = [pair._replace(holds=holds) for pair in pairs if pair not in known]
    else:
        least, most = level.depth
        wanted = [fact for fact in theory.origins if fact.holds == (holds == (answer == TRUE))]
        found = [fact for fact in wanted if least <= _depth(theory, fact) <= most]
    if not found:
        return None
    fact = rng.choice(found)
    return judge(theory, fact.opposite if answer == FALSE else fact)


def _rule(level: Level, rng: random.Random, traits: list[str]) -> Rule:
    *conditions, conclusion = rng.sample(traits, rng.choice((2, 2, 3)))
    holds = rng.random() >= level.negated
    read = tuple(Fact(VARIABLE, "is", trait) for trait in conditions)
    return Rule(read, Fact(VARIABLE, "is", conclusion, holds))


def _depth(theory: Theory, fact: Fact) -> int:
    """Rules one after another that a fact needs; 0 where it is stated."""
    premises = theory.origins[fact].premises
    return 1 + max(_depth(theory, premise) for premise in premises) if premises else 0


def _tell(said: Fact | Rule) -> str:
    return sentence(tell_rule(said) if isinstance(said, Rule) else tell(said))
