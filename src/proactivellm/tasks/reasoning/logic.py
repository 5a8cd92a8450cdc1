"""Problems about theories: whether a statement is true, false or unknown, sentence by sentence.

A thought tells what follows for the first time with the sentence just read: it depends on what was
read alone. (Steps of the final proof alone would be fewer, but which those are is known only at the
end: whoever learns from them learns to guess what comes.)
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from proactivellm.tasks.reasoning.english import parse, sentence, tell
from proactivellm.tasks.reasoning.problem import Problem
from proactivellm.tasks.reasoning.theory import Fact, Rule, Step, Theory

Thoughts = Literal["all", "proof"]
TRUE, FALSE, UNKNOWN = "true", "false", "unknown"


class Solved(NamedTuple):
    """A statement judged by a theory."""

    theory: Theory
    statement: Fact
    answer: str  # TRUE, FALSE or UNKNOWN
    proof: list[Step]  # of the statement or its opposite; empty if unknown


def judge(theory: Theory, statement: Fact) -> Solved:
    """Whether a statement or its opposite follows from a theory that does not contradict itself."""
    for fact, answer in ((statement, TRUE), (statement.opposite, FALSE)):
        if fact in theory.origins:
            return Solved(theory, statement, answer, theory.proof(fact))
    return Solved(theory, statement, UNKNOWN, [])


def parse_all(sentences: Sequence[str]) -> list[Fact | Rule]:
    """What the sentences of a theory say; ValueError as `english.parse`."""
    return [parse(text) for text in sentences]


def as_problem(
    name: str, question: str, sentences: Sequence[str], solved: Solved, thoughts: Thoughts = "all"
) -> Problem:
    """A solved theory as a problem, with all stages.

    Args:
        thoughts: "all" that follows, or the steps of the proof alone; then a statement that is
            unknown has none.
    """
    steps = {step.fact for step in solved.proof}
    told = [
        " ".join(_tell(step) for step in derived if thoughts == "all" or step.fact in steps)
        for derived in solved.theory.derived
    ]
    read = {step.sentence for step in solved.proof}
    return Problem(
        id=name,
        question=question,
        sentences=tuple(sentences),
        thoughts=tuple(told),
        integration=_conclude(solved),
        reflection=_reflect(solved),
        answer=solved.answer,
        needed=tuple(i in read for i in range(len(sentences))),
    )


def _tell(step: Step) -> str:
    premises = " and ".join(map(tell, step.premises))
    return sentence(f"{premises}, so {tell(step.fact)}")


def _conclude(solved: Solved) -> str:
    if solved.proof:
        found = sentence(tell(solved.proof[-1].fact))
        return f"{found} So the statement is {solved.answer}."
    return "Neither the statement nor its opposite follows."


def _reflect(solved: Solved) -> str:
    """Checks the proof step by step, or that there is none."""
    if not solved.proof:
        opposite = tell(solved.statement.opposite)
        return f"Check: nothing gives that {tell(solved.statement)}, nor that {opposite}."
    derived = [_tell(step) for step in solved.proof if step.premises]
    stated = [sentence(tell(step.fact)) for step in solved.proof if not step.premises]
    return f"Check: {' '.join([*stated, *derived])}"
