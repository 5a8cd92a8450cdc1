"""Generated questions: where the evidence is, what gives nothing away, splits without overlap."""

import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proactivellm.output.log import Instance
from proactivellm.tasks.lookup import LEVELS, NAMES, RELATIONS, UNKNOWN, Lookup, draw

ASKING = [name for name, level in LEVELS.items() if not level.recites]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def parts(lookup: Lookup) -> tuple[str, list[str]]:
    """Question and facts, without their last marks."""
    question, facts = lookup.source.split(" ? ")
    assert facts.endswith(" .")
    return question, facts.removesuffix(" .").split(" . ")


def told(fact: str) -> tuple[str, str]:
    """Whom a fact is about, and its verb."""
    person, verb = fact.split()[:2]
    return person, verb


def verb_of(question: str) -> tuple[str, str]:
    """The person asked about, and the verb of the fact that would answer."""
    for relation in RELATIONS:
        for person in NAMES:
            if relation.question.format(person) == f"{question} ?":
                return person, relation.fact.split()[1]
    raise AssertionError(question)


@pytest.mark.parametrize("level", ASKING)
def test_the_evidence_answers_and_nothing_else_does(level: str) -> None:
    for lookup in draw([level], 150):
        question, facts = parts(lookup)
        assert LEVELS[level].facts[0] <= len(facts) <= LEVELS[level].facts[1]
        subjects = [told(fact) for fact in facts]
        assert len(set(subjects)) == len(subjects)  # nobody has two homes
        matching = [fact for fact in facts if told(fact) == verb_of(question)]
        units = lookup.source.split()
        if lookup.target == UNKNOWN:
            assert not matching and lookup.evidence == len(units)
            continue
        (evidence,) = matching
        assert evidence.endswith(f" {lookup.target}") and len(lookup.target.split()) <= 2
        read = units[: lookup.evidence]
        assert read[-1] == lookup.target.split()[0]
        assert " ".join(read).endswith(evidence[: -len(lookup.target)] + read[-1])


def test_values_cannot_be_guessed() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 60
    for relation in RELATIONS:
        assert len(relation.values) == len(set(relation.values)) >= 30
    answers = Counter(lookup.target for lookup in draw(["medium"], 3000))
    del answers[UNKNOWN]
    assert answers.most_common(1)[0][1] < 0.01 * 3000


def test_the_evidence_is_anywhere() -> None:
    places = []
    for lookup in draw(["medium"], 3000):
        if lookup.target != UNKNOWN:
            question, facts = parts(lookup)
            before = " ".join(lookup.source.split()[: lookup.evidence]).count(" . ")
            places.append((before + 0.5) / len(facts))
    counts, _ = np.histogram(places, bins=4, range=(0, 1))
    assert np.abs(counts / len(places) - 0.25).max() < 0.03


@pytest.mark.parametrize("level", ASKING)
def test_shares_are_those_of_the_level(level: str) -> None:
    wish, lookups = LEVELS[level], draw([level], 800)
    unknown = [lookup for lookup in lookups if lookup.target == UNKNOWN]
    assert len(unknown) / len(lookups) == pytest.approx(wish.unknown, abs=0.06)
    same_person = same_relation = others = 0
    for lookup in lookups:
        question, facts = parts(lookup)
        asked = verb_of(question)
        for fact in facts:
            person, verb = told(fact)
            if (person, verb) != asked:
                others += 1
                same_person += person == asked[0]
                same_relation += verb == asked[1]
    # By chance others share the person (1 of 64) and the relation (1 of 8) as well; a long stream
    # runs out of things to say of one person.
    assert same_person / others == pytest.approx(wish.same_person, abs=0.08)
    assert same_relation / others >= wish.same_relation - 0.03


def test_before_the_evidence_nothing_tells_whether_there_is_an_answer() -> None:
    """First facts that do not answer are alike in both kinds of question."""
    features: dict[bool, list[tuple[float, ...]]] = {True: [], False: []}
    for lookup in draw(["medium"], 3000):
        question, facts = parts(lookup)
        asked, first = verb_of(question), told(facts[0])
        if first != asked:
            same = first[0] == asked[0], first[1] == asked[1]
            features[lookup.target == UNKNOWN].append((*same, len(facts), len(facts[0].split())))
    means = {kind: np.mean(rows, axis=0) for kind, rows in features.items()}
    errors = np.sqrt(sum(np.var(rows, axis=0) / len(rows) for rows in features.values()))
    assert (np.abs(means[True] - means[False]) < 4 * errors).all()


def test_splits_and_seeds() -> None:
    sources = {
        (split, seed): {lookup.source for lookup in draw(["easy", "medium"], 100, seed, split)}
        for split in ("train", "valid", "test")
        for seed in (0, 1)
    }
    assert all(len(found) == 100 for found in sources.values())
    for (split, seed), found in sources.items():
        assert found == {x.source for x in draw(["easy", "medium"], 100, seed, split)}
        for (other, other_seed), others in sources.items():
            if split != other:
                assert not found & others
            elif seed != other_seed:
                assert found != others


def test_no_source_occurs_twice_even_where_there_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    from proactivellm.tasks import lookup

    relation = lookup.Relation("who is {} ?", "{} is {} .", ("red", "blue"))
    monkeypatch.setattr(lookup, "RELATIONS", (relation,))
    monkeypatch.setattr(lookup, "NAMES", ("a", "b", "c"))
    monkeypatch.setitem(lookup.LEVELS, "few", lookup.Level((1, 1), 0.0, 0.0, 0.5))
    # 3 questions with 2 answers or 2 x 2 other facts; about 8 tenths of 18 belong to training.
    drawn = draw(["few"], 10)
    assert len({question.source for question in drawn}) == 10


def test_a_recital_tells_every_fact_once_in_another_order() -> None:
    moved = 0
    for lookup in draw(["recital"], 50):
        question, facts = parts(lookup)
        assert question == "what do all do" and 4 <= len(facts) <= 8
        people = [told(fact)[0] for fact in facts]
        assert len(set(people)) == len(people)
        order = [word for word in lookup.target.split() if word in people]
        assert sorted(order) == sorted(people) and lookup.evidence == len(lookup.source.split())
        moved += order != people
        for fact in facts:
            person, value = told(fact)[0], fact.split()[-1]
            after = lookup.target.split()[lookup.target.split().index(person) + 1 :]
            assert value in after[:2]
    assert moved > 45


def test_levels_take_turns() -> None:
    lengths = [len(parts(lookup)[1]) for lookup in draw(["easy", "hard"], 20)]
    assert max(lengths[::2]) <= 6 and min(lengths[1::2]) >= 16


def test_unknown_levels_and_splits() -> None:
    with pytest.raises(ValueError, match="'heavy' is unknown: give one of easy, medium, hard"):
        draw(["easy", "heavy"], 1)
    with pytest.raises(ValueError, match="of the splits train, valid, test one"):
        draw(["easy"], 1, split="dev")


def instance(index: int, answer: str, said: str, g: list[int]) -> Instance:
    words: list[Any] = said.split()
    return Instance(
        index=index,
        source="-",
        source_length=20,
        prediction=said,
        prediction_length=len(words),
        reference=answer,
        delays=[g[0]] * len(words),
        elapsed=[0.0] * len(words),
        token_delays=g,
        policy="wait-k:1",
        forwards=None,
        tokens=None,
    )


def test_answer_times() -> None:
    answer_times = runpy.run_path(str(BENCHMARKS / "answer_times.py"))["answer_times"]
    instances = [
        instance(2, "rome", "rome", [10, 11]),  # at once
        instance(0, "rome", "Rome", [14, 20]),  # four units late
        instance(1, "lima", "rome", [3, 4]),  # before: a guess
        instance(3, UNKNOWN, UNKNOWN, [20, 20]),
        instance(4, UNKNOWN, "oslo", [7, 8]),
    ]
    row = answer_times(instances, [10, 8, 10, 20, 20])
    assert row == {
        "questions": 3,
        "lag": pytest.approx((0 + 4 - 5) / 3),
        "median": 0,
        "before": pytest.approx(1 / 3),
        "at": pytest.approx(2 / 3),
        "EM": pytest.approx(200 / 3),
        "unknown": 2,
        "EM unknown": 50.0,
        "end": 0.5,
    }
    with pytest.raises(ValueError, match="instance 4 has no line among 4"):
        answer_times(instances, [10, 8, 10, 20])


def test_written_sets_belong_together(tmp_path: Path) -> None:
    runpy.run_path(str(BENCHMARKS / "lookup_sets.py"))["main"](tmp_path, 5)
    assert len(list(tmp_path.iterdir())) == 2 * 3 * 3
    sides = [
        (tmp_path / f"test.hard.{side}").read_text().splitlines()
        for side in ("src", "tgt", "evidence")
    ]
    for source, target, evidence in zip(*sides, strict=True):
        assert target == UNKNOWN or source.split()[int(evidence) - 1] == target.split()[0]
