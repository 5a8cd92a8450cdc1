"""Rewards: their bounds, the gate, and what each sign of an advantage means."""

from dataclasses import replace

import pytest
import torch
from sacrebleu.metrics.chrf import CHRF

from proactivellm.output.log import Instance
from proactivellm.rl.reward import WORST, Rewards, make_rewards, qualities

REFERENCE = "the book lies on the table"


def written(text: str, delays: list[float], task: str = "translation") -> Instance:
    return Instance(
        index=0,
        source="das Buch liegt auf dem Tisch",
        source_type="text",
        source_length=6,
        prediction=text,
        prediction_length=len(text.split()),
        reference=REFERENCE,
        task=task,  # type: ignore[arg-type]
        delays=delays,
        elapsed=[0.0] * len(delays),
        token_delays=delays,
        policy="learned:0.5",
        forwards=1,
        tokens=1,
    )


RIGHT_LATE = written(REFERENCE, [6.0] * 6)
RIGHT_EARLY = written(REFERENCE, [2.0, 3.0, 4.0, 5.0, 6.0, 6.0])
WRONG_EARLY = written("a cat sat in a hat", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
NOTHING = written("", [])
GROUP = [RIGHT_LATE, RIGHT_EARLY, WRONG_EARLY, NOTHING]


def test_quality_is_that_of_sacrebleu_and_within_its_bounds() -> None:
    found = qualities(GROUP).tolist()
    wanted = [CHRF().sentence_score(i.prediction, [REFERENCE]).score / 100 for i in GROUP]
    assert found == pytest.approx(wanted) and found[:2] == [1, 1] and found[3] == 0
    assert qualities([replace(i, task="asr") for i in GROUP[:2]]).tolist() == [1, 1]
    assert qualities([written("no " * 40, [6.0] * 40, "asr")]).tolist() == [
        0
    ]  # more errors than words


@pytest.mark.parametrize("latency", ["LAAL", "DAL"])
def test_latency_is_a_share_of_the_source(latency: str) -> None:
    rewards = make_rewards([GROUP], None, latency)  # type: ignore[arg-type]
    late, early, wrong, nothing = rewards.latency_NG[0].tolist()
    assert late == nothing == WORST and 0 < wrong < early < late
    assert early == pytest.approx(2 / 6)
    assert rewards.passed_NG.all() and torch.equal(rewards.gated_NG, rewards.latency_NG)
    total = rewards.total(0.5)
    assert (total >= -0.5).all() and (total <= 1).all()


def test_the_gate_takes_the_latency_of_what_is_not_good_enough() -> None:
    level = torch.tensor([0.9], dtype=torch.float64)
    gated, free = make_rewards([GROUP], level, "LAAL"), make_rewards([GROUP], None, "LAAL")
    assert gated.passed_NG.tolist() == [[True, True, False, False]]
    assert gated.gated_NG[0].tolist() == [WORST, free.latency_NG[0, 1], WORST, WORST]
    # Without a gate being early is worth something to the wrong one: with it, nothing.
    only_latency = Rewards(torch.zeros_like(free.quality_NG), free.latency_NG, free.passed_NG)
    assert only_latency.advantages(1.0)[0, 2] > 0
    behind = Rewards(torch.zeros_like(gated.quality_NG), gated.latency_NG, gated.passed_NG)
    assert behind.advantages(1.0)[0, 2] < 0
    best = [rewards.advantages(0.5)[0].argmax() for rewards in (gated, free)]
    assert best == [1, 1]


def test_a_group_that_fails_as_a_whole_learns_from_quality_alone() -> None:
    level = torch.tensor([1.1], dtype=torch.float64)
    rewards = make_rewards([GROUP], level, "LAAL")
    assert torch.equal(rewards.advantages(0.5), rewards.advantages(50.0))
