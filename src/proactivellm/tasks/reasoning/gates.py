"""Whether thoughts may be learned from: measured filters, each with the number that it drops.

StreamingThinker (Tong et al. 2025, arXiv 2510.17238) keeps samples with as many thoughts as
sentences and with thoughts that resemble their sentences; it states no thresholds. Its similarity
is the cosine of SBERT embeddings; here that of the counts of content words and numbers, unless
another is given. A thought that tells what was not read yet is refused here as well.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from proactivellm.output.source_units import joined_texts, source_units
from proactivellm.tasks.reasoning.problem import Problem
from proactivellm.tasks.reasoning.told import COMMON, content_words, numbers

Similarity = Callable[[str, str], float]
GATES = ("granularity", "leaks", "consistency", "length")
_RESULT = re.compile(r"=\s*\D{0,3}([\d.,]*\d)")


class Leak(NamedTuple):
    """Something that a thought tells and only later sentences do, too."""

    sentence: int  # after which the thought stands
    what: str  # a word, or a number


def find_leaks(problem: Problem) -> list[Leak]:
    """The words and numbers of thoughts that come from sentences that were not read yet.

    Results of equations may be anything, and so may what everybody knows, such as 60.
    """
    words, told = content_words(problem.question), Counter(numbers(problem.question))
    leaks = []
    later_words = [content_words(text) for text in problem.sentences]
    later_numbers = [set(numbers(text)) for text in problem.sentences]
    for i, thought in enumerate(problem.thoughts):
        words |= later_words[i]
        told.update(later_numbers[i])
        unread_words = set().union(*later_words[i + 1 :])
        unread_numbers: set[Fraction] = set().union(*later_numbers[i + 1 :])
        computed = {Fraction(found.replace(",", "")) for found in _RESULT.findall(thought)}
        leaks += [Leak(i, word) for word in sorted((content_words(thought) - words) & unread_words)]
        new = numbers(thought).keys() - told.keys() - computed - COMMON
        leaks += [Leak(i, str(number)) for number in sorted(new & unread_numbers)]
        words |= content_words(thought)
        told.update(numbers(thought))
    return leaks


def overlap(first: str, second: str) -> float:
    """Cosine of the counts of content words and numbers of two texts, 0..1."""
    counts = [_terms(text) for text in (first, second)]
    common = sum(counts[0][term] * counts[1][term] for term in counts[0])
    sizes = [math.sqrt(sum(value**2 for value in each.values())) for each in counts]
    return common / (sizes[0] * sizes[1]) if all(sizes) else 0.0


def _terms(text: str) -> Counter[str | Fraction]:
    terms: Counter[str | Fraction] = Counter(numbers(text))
    terms.update(content_words(text))
    return terms


def consistency(problem: Problem, similarity: Similarity = overlap) -> float | None:
    """Mean similarity of the thoughts and their sentences; None if there are no thoughts."""
    pairs = zip(problem.sentences, problem.thoughts, strict=False)
    found = [similarity(sentence, thought) for sentence, thought in pairs if thought]
    return sum(found) / len(found) if found else None


class Gates(NamedTuple):
    """What a problem has to pass."""

    longest: int | None = None  # words of one thought: more is the thinking of several sentences
    min_consistency: float = 0.1  # of `consistency`, 0..1
    longest_problem: int | None = None  # words of all but the answer: for want of memory or time
    similarity: Similarity = overlap

    def failed(self, problem: Problem) -> list[str]:
        """The names of the gates that a problem fails, in their order."""
        same = consistency(problem, self.similarity)
        whole = (problem.question, *problem.sentences, problem.written)
        fails = {
            "granularity": not problem.thoughts or _any_beyond(self.longest, problem.thoughts),
            "leaks": bool(find_leaks(problem)),
            "consistency": same is not None and same < self.min_consistency,
            "length": _any_beyond(self.longest_problem, [joined_texts(filter(None, whole))]),
        }
        return [gate for gate in GATES if fails[gate]]


DEFAULT = Gates()


class Report(NamedTuple):
    """What a set of problems is like: means over problems, and how many pass."""

    num_problems: int
    failed: Counter[str]  # by the gates; a problem may fail several
    passed: int  # all gates
    sentences: float
    skipped: float  # share of the sentences without a thought
    thought_words: float  # of a problem
    late_words: float  # share of them that follow the last sentence
    consistency: float | None  # mean over the problems with thoughts
    needed: float | None  # share of the sentences that are needed, where it is known
    thinks_needed: float | None  # share of those that have a thought
    thinks_filler: float | None  # share of the others that have one

    def lines(self) -> list[str]:
        """As text, a line each."""
        passed = f"{self.passed} of {self.num_problems} pass all gates"
        fails = ", ".join(f"{self.failed[gate]} {gate}" for gate in GATES)
        known = {
            "sentences": f"{self.sentences:.1f}",
            "skipped": f"{self.skipped:.0%}",
            "words of thought": f"{self.thought_words:.1f}",
            "of them after the last sentence": f"{self.late_words:.0%}",
            "consistency": _share(self.consistency),
            "needed sentences": _share(self.needed),
            "of them with a thought": _share(self.thinks_needed),
            "fillers with a thought": _share(self.thinks_filler),
        }
        told = ", ".join(f"{name} {value}" for name, value in known.items() if value)
        return [f"{passed} (failed: {fails})", told]


def judge_all(problems: Sequence[Problem], gates: Gates = DEFAULT) -> tuple[list[Problem], Report]:
    """The problems that pass all gates, and the report on all of them.

    Raises:
        ValueError: there are none.
    """
    if not problems:
        raise ValueError("there are no problems to judge")
    failed: Counter[str] = Counter()
    kept = []
    for problem in problems:
        fails = gates.failed(problem)
        failed.update(fails)
        kept += [] if fails else [problem]
    thoughts = [thought for problem in problems for thought in problem.thoughts]
    words = [[_num_words(thought) for thought in problem.thoughts] for problem in problems]
    same = [consistency(problem, gates.similarity) for problem in problems]
    labelled = [problem for problem in problems if problem.needed and problem.thoughts]
    pairs = [pair for p in labelled for pair in zip(p.needed, p.thoughts, strict=True)]
    report = Report(
        num_problems=len(problems),
        failed=failed,
        passed=len(kept),
        sentences=sum(len(problem.sentences) for problem in problems) / len(problems),
        skipped=_mean([not thought for thought in thoughts]) or 0.0,
        thought_words=sum(map(sum, words)) / len(problems),
        late_words=sum(each[-1] for each in words if each) / max(1, sum(map(sum, words))),
        consistency=_mean([value for value in same if value is not None]),
        needed=_mean([needed for needed, _ in pairs]),
        thinks_needed=_mean([bool(thought) for needed, thought in pairs if needed]),
        thinks_filler=_mean([bool(thought) for needed, thought in pairs if not needed]),
    )
    return kept, report


def _any_beyond(most: int | None, texts: Iterable[str]) -> bool:
    """Whether one of the texts has more words; None = any number will do."""
    return most is not None and any(_num_words(text) > most for text in texts)


def _num_words(text: str) -> int:
    return len(source_units(text))  # characters, of texts without spaces


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
