"""Theories of facts and rules: what follows after each sentence, and from what.

Forward chaining with explicit negation, in an open world: what is neither stated nor derived is
unknown, as in ProofWriter's OWA sets (Tafjord et al. 2021, arXiv 2012.13048).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

VARIABLE = "?"  # whoever a rule is about


class Fact(NamedTuple):
    """Something said of somebody: subject, relation ("is", "chase"), value."""

    subject: str
    relation: str
    value: str
    holds: bool = True

    @property
    def opposite(self) -> "Fact":
        """The same, said not to hold; or to hold, if this does not."""
        return self._replace(holds=not self.holds)

    def of(self, name: str) -> "Fact":
        """With a name in place of the variable."""
        subject = name if self.subject == VARIABLE else self.subject
        value = name if self.value == VARIABLE else self.value
        return Fact(subject, self.relation, value, self.holds)


class Rule(NamedTuple):
    """If all conditions hold, of the same somebody, then the conclusion does."""

    conditions: tuple[Fact, ...]
    conclusion: Fact


class Step(NamedTuple):
    """A fact with what it came from."""

    fact: Fact
    sentence: int  # number of the sentence that states it, or the rule that gives it
    premises: tuple[Fact, ...] = ()  # none where it is stated


class Theory:
    """What is known after each sentence of a theory.

    Args:
        statements: what each sentence says.
    """

    def __init__(self, statements: Sequence[Fact | Rule]) -> None:
        self.origins: dict[Fact, Step] = {}
        # Of each sentence, what follows for the first time once it is read, in order.
        self.derived: list[list[Step]] = []
        self._rules: list[tuple[int, Rule]] = []
        self._names: dict[str, None] = {}  # in the order of their facts
        for number, statement in enumerate(statements):
            if isinstance(statement, Rule):
                self._rules.append((number, statement))
            else:
                self.origins.setdefault(statement, Step(statement, number))
                self._names |= dict.fromkeys((statement.subject, statement.value))
            self.derived.append(list(self._exhaust()))

    def consistent(self) -> bool:
        """Whether nothing follows together with its opposite."""
        return not any(fact.opposite in self.origins for fact in self.origins)

    def proof(self, fact: Fact) -> list[Step]:
        """All steps that a known fact rests on, premises before conclusions."""
        steps: dict[Fact, Step] = {}

        def add(fact: Fact) -> None:
            if fact not in steps:
                for premise in self.origins[fact].premises:
                    add(premise)
                steps[fact] = self.origins[fact]

        add(fact)
        return list(steps.values())

    def _exhaust(self) -> Iterator[Step]:
        """Applies the rules read so far until nothing new follows."""
        found = True
        while found:
            found = False
            for number, rule in self._rules:
                for step in self._applied(number, rule):
                    if step.fact not in self.origins:
                        self.origins[step.fact] = step
                        found = True
                        yield step

    def _applied(self, number: int, rule: Rule) -> list[Step]:
        """What a rule gives of what is known, at once."""
        bound = any(VARIABLE in condition for condition in rule.conditions)
        steps = []
        for name in self._names if bound else [VARIABLE]:
            premises = []
            for condition in rule.conditions:
                premises.append(condition.of(name))
                if premises[-1] not in self.origins:
                    break
            else:
                steps.append(Step(rule.conclusion.of(name), number, tuple(premises)))
        return steps
