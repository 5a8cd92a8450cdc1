"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): solutions made thoughts, by their own equations.

`{"question": "...", "answer": "Tom buys 2*3 = <<2*3=6>>6 apples.\\n...\\n#### 6"}`. A step becomes
the thought of the earliest sentence with which all of its premises have been read: the steps whose
results it uses, the numbers that it takes from the text, and the words it shares with the text.
Where several sentences tell a number, the last of them counts, as it may be the one meant.
"""

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from proactivellm.tasks.reasoning.problem import Problem, sentences_of
from proactivellm.tasks.reasoning.rows import Dropped, text_in
from proactivellm.tasks.reasoning.told import COMMON, content_words, numbers

_EQUATION = re.compile(r"<<([^=<>]*)=([^<>]*)>>")
_ASKS = re.compile(r"\?|\b(?:calculate|find|determine|how many|how much|what)\b", re.IGNORECASE)
_QUESTION = -1  # its place: it is read before all sentences
_OPERATIONS: Mapping[type, Callable[[Fraction, Fraction], Fraction]] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub},
    **{ast.Mult: operator.mul, ast.Div: operator.truediv},
}


class _Equation(NamedTuple):
    text: str  # "48/2 = 24"
    operands: tuple[Fraction, ...]
    result: Fraction


class _Step(NamedTuple):
    text: str  # without the marks of equations
    equations: tuple[_Equation, ...]


def gsm8k_problem(row: Mapping[str, Any], name: str) -> Problem:
    """A row as a problem, whose answer is a number.

    Raises:
        Dropped: it does not end with a question, or is a question alone; a solution without
            equations, or with one that does not hold; a step uses a number that is neither told
            nor computed; the answer is no result.
        ValueError: a field is missing, or is not what it should be.
    """
    *sentences, question = sentences_of(text_in(row, "question"))
    answer = row.get("answer")
    if not isinstance(answer, str) or "####" not in answer:
        raise ValueError(f"there is no answer in steps that end with '#### n': {answer!r:.40}")
    if not _ASKS.search(question):
        raise Dropped("the last sentence asks nothing")
    if not sentences:
        raise Dropped("there is no sentence beside the question")
    solution, _, final = answer.partition("####")
    final = final.strip().replace(",", "")
    steps = [_read_step(line) for line in solution.splitlines() if line.strip()]
    equations = [equation for step in steps for equation in step.equations]
    if not equations:
        raise Dropped("the solution has no equations")
    if final not in {_plain(equation.result) for equation in equations}:
        raise Dropped("the answer is not the result of an equation")
    places = _align(steps, question, sentences)
    thoughts = [
        " ".join(step.text for step, place in zip(steps, places, strict=True) if place == i)
        for i in range(len(sentences))
    ]
    return Problem(
        id=name,
        question=question,
        sentences=tuple(sentences),
        thoughts=tuple(thoughts),
        integration=f"Together: {'; '.join(equation.text for equation in equations)}.",
        reflection=f"Check: {'; '.join(map(_backwards, equations))}.",
        answer=final,
    )


def _read_step(line: str) -> _Step:
    equations = []
    for expression, result in _EQUATION.findall(line):
        try:
            tree = ast.parse(expression.replace(",", "").replace("%", "/100").strip(), mode="eval")
            value, given = _value(tree.body), Fraction(result.replace(",", "").strip())
        except (ValueError, SyntaxError, ZeroDivisionError):
            raise Dropped("an equation is not arithmetic") from None
        if abs(value - given) > max(Fraction(1), abs(given)) / 100:  # 1/3 is given as .33
            raise Dropped("an equation does not hold")
        operands = tuple(
            Fraction(str(node.value)) for node in ast.walk(tree) if isinstance(node, ast.Constant)
        )
        equations.append(_Equation(f"{expression.strip()} = {_plain(given)}", operands, given))
    text = " ".join(_EQUATION.sub("", line).split())
    return _Step(text if text[-1] in ".!?:" else f"{text}.", tuple(equations))


def _value(node: ast.expr) -> Fraction:
    """The exact value of an expression of numbers, + - * / and parentheses."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("no arithmetic")


def _align(steps: Sequence[_Step], question: str, sentences: Sequence[str]) -> list[int]:
    """The sentence that makes each step possible; the first, where the question alone does."""
    text = _Text(
        numbers(question), list(map(numbers, sentences)), list(map(content_words, sentences))
    )
    asked_words = content_words(question)
    computed: dict[Fraction, int] = {}  # number that a step says: where it is known
    places = []
    for step in steps:
        results = {equation.result for equation in step.equations}
        operands = {number for equation in step.equations for number in equation.operands}
        needs = [text.first_word(word) for word in content_words(step.text) - asked_words]
        for number in operands | (numbers(step.text).keys() - results):
            places_of = [text.last_number(number), computed.get(number)]
            if places_of == [None, None] and number in operands - results - COMMON:
                raise Dropped("a step uses a number that is neither told nor computed")
            needs += [place for place in places_of if place is not None]
        place = max([0, *needs])
        # Not every result is marked: whatever a step says first is known from there on.
        computed = dict.fromkeys(numbers(step.text), place) | computed
        computed |= dict.fromkeys(results, place)
        places.append(place)
    return places


class _Text(NamedTuple):
    """What a problem tells, and where: a place is the number of a sentence."""

    asked: Counter[Fraction]  # numbers of the question, which is read before all sentences
    numbers: list[Counter[Fraction]]  # of each sentence
    words: list[set[str]]  # likewise

    def last_number(self, number: Fraction) -> int | None:
        """Where a number was told last; None if it is told nowhere."""
        told = [i for i, there in enumerate(self.numbers) if number in there]
        return told[-1] if told else _QUESTION if number in self.asked else None

    def first_word(self, word: str) -> int:
        """Where a word was read first; a word of the step's own needs nothing to be read."""
        return next((i for i, words in enumerate(self.words) if word in words), _QUESTION)


def _backwards(equation: _Equation) -> str:
    """An equation of two numbers solved for the first of them; others as they are."""
    match = re.fullmatch(r"([\d.]+)\s*([-+*/])\s*([\d.]+) = ([\d.]+)", equation.text)
    if not match or not equation.result:
        return equation.text
    first, sign, second, result = match.groups()
    inverse = {"+": "-", "-": "+", "*": "/", "/": "*"}[sign]
    return f"{result} {inverse} {second} = {first}"


def _plain(number: Fraction) -> str:
    """In digits, with at most as many decimals as the number has."""
    return str(number.numerator) if number.denominator == 1 else f"{float(number):g}"
