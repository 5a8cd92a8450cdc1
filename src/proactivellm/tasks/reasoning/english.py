"""The English of theories, both ways: that of ProofWriter and of ProntoQA, and our own.

"The lion is not cold.", "Anne likes the cow.", "If someone is kind and it sees the cow then ...",
"All kind, big people are not red.", "Each yumpus is a dumpus.", "Yumpuses are not wooden."
"""

import re
from collections.abc import Iterator

from proactivellm.tasks.reasoning.theory import VARIABLE, Fact, Rule

_ANYONE = {"something", "someone", "it", "they"}
_BE = re.compile(r"(?P<who>.+?) (?:is|are)(?P<no> not)? (?P<what>.+)")
_DO = re.compile(r"(?P<who>.+?) (?:does|do)(?P<no> not) (?P<verb>\w+) (?P<what>.+)")
_VERB = re.compile(r"(?P<who>the (?:bald )?\w+|\w+)(?P<no>) (?P<verb>\w+) (?P<what>.+)", re.I)
_IF = re.compile(r"if (?P<conditions>.+?),? then (?P<conclusion>.+)", re.I)
_ALL = re.compile(r"(?:all )?(?P<which>\w+(?:, \w+)*) (?:people|things) are (?P<what>.+)", re.I)
_EACH = re.compile(r"(?:each|every) (?P<kind>\w+) is (?P<what>.+)", re.I)
_KINDS = re.compile(r"(?P<kind>\w+pus)es are (?P<what>.+)", re.I)


def parse(sentence: str) -> Fact | Rule:
    """What a sentence of a theory says; a ValueError if it is none of the known forms."""
    text = sentence.strip().removesuffix(".")
    if found := _IF.fullmatch(text):
        return Rule(tuple(_conditions(found["conditions"])), _clause(found["conclusion"]))
    if found := _ALL.fullmatch(text):
        which = (word.lower() for word in found["which"].split(", "))
        conditions = tuple(Fact(VARIABLE, "is", word) for word in which)
        return Rule(conditions, _clause(f"they are {found['what']}"))
    if found := _EACH.fullmatch(text) or _KINDS.fullmatch(text):
        kind = Fact(VARIABLE, "is", _with_article(found["kind"].lower()))
        return Rule((kind,), _clause(f"it is {found['what']}"))
    return _clause(text)


def tell(fact: Fact) -> str:
    """A fact as a clause, without a full stop; "the ..." in lower case."""
    who, relation, value = fact.subject, fact.relation, fact.value
    if relation == "is":
        return f"{who} is {value}" if fact.holds else f"{who} is not {value}"
    return f"{who} {relation}s {value}" if fact.holds else f"{who} does not {relation} {value}"


def tell_rule(rule: Rule) -> str:
    """A rule about properties of anybody, as a clause."""
    they = [f"they are {'' if c.holds else 'not '}{c.value}" for c in rule.conditions]
    conditions = " and ".join(they).replace("they are", "someone is", 1)
    conclusion = f"{'' if rule.conclusion.holds else 'not '}{rule.conclusion.value}"
    return f"if {conditions} then they are {conclusion}"


def sentence(clause: str) -> str:
    """A clause as a sentence."""
    return f"{clause[0].upper()}{clause[1:]}."


def _conditions(text: str) -> Iterator[Fact]:
    """Conditions joined by "and"; a property alone is of whom the one before is about."""
    who = ""
    for clause in text.split(" and "):
        condition = _clause(clause if " " in clause.removeprefix("not ") else f"{who} is {clause}")
        who = condition.subject if condition.subject != VARIABLE else "it"
        yield condition


def _clause(text: str) -> Fact:
    found = _BE.fullmatch(text)
    if found:
        return Fact(_name(found["who"]), "is", _property(found["what"]), not found["no"])
    found = _DO.fullmatch(text) or _VERB.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no fact and no rule")
    verb = found["verb"] if found["no"] else found["verb"].removesuffix("s")
    return Fact(_name(found["who"]), verb, _name(found["what"]), not found["no"])


def _name(text: str) -> str:
    if text.lower() in _ANYONE:
        return VARIABLE
    return text[0].lower() + text[1:] if text.lower().startswith("the ") else text


def _property(text: str) -> str:
    """A property in lower case; a kind, also of a plural, with its article."""
    word = text.lower()
    for article in ("a ", "an "):
        word = word.removeprefix(article)
    if word.endswith("puses"):
        word = word.removesuffix("es")
    elif word == text.lower():
        return word
    return _with_article(word)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
