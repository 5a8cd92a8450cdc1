"""HRPO: credit by stage, log-probabilities of the engine computed again, updates that use both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.thinking import thinking_model
from torch import Tensor

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.policy.fixed import WaitK
from proactivellm.rl import hrpo, judging
from proactivellm.rl.advantage import clipped_loss, group_relative
from proactivellm.rl.credit import token_advantages
from proactivellm.rl.hrpo import ThinkingReinforcement
from proactivellm.rl.judging import ThinkingPlan
from proactivellm.rl.run import CURVE_FILE
from proactivellm.rl.run import reinforce as save
from proactivellm.rl.thinking import (
    ANSWER,
    DEEP,
    ThoughtRollout,
    make_problems,
    think,
    thought_entropy,
    thought_log_probs,
)
from proactivellm.session.limits import Limits
from proactivellm.session.outcome import Outcomes
from proactivellm.session.thoughts import Place, Thinker
from proactivellm.stream import Job

TEXTS = "Who? The dog sleeps. The cat watches it.", "Who? A man stands. It is big. The end."
JOBS = [
    Job(index=i, source=text, num_asked=1, reference="7", task="reasoning", answers=("7",))
    for i, text in enumerate(TEXTS)
]
LIMITS = Limits(streams=8, thought_tokens=4)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def short(layout: str = "thoughts") -> StreamingCausalLM:
    model = thinking_model("llama", layout)
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = 6
    return model


@dataclass(frozen=True)
class Fake:
    """Tokens about two sentences, of deep stages, and of an answer of two."""

    first: int
    second: int
    deep: int

    @property
    def parts(self) -> list[int]:
        return [0] * self.first + [1] * self.second + [DEEP] * self.deep + [ANSWER] * 2

    @property
    def bounds(self) -> list[bool]:
        ends = [n == k - 1 for k in (self.first, self.second, self.deep) for n in range(k)]
        return [*ends, False, False]


SPLITS = [Fake(1, 1, 8), Fake(1, 3, 6), Fake(2, 4, 4), Fake(5, 3, 2)]  # of equal length
ALIKE, RIGHT = torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.bool)
HOW = {"weight": 0.3, "price": 0.1}


def by_part(found: Sequence[Tensor], part: int) -> list[set[float]]:
    return [
        {v for v, p in zip(a.tolist(), one.parts, strict=True) if p == part}
        for a, one in zip(found, SPLITS, strict=True)
    ]


def test_stages_are_told_apart_where_grpo_sees_no_difference() -> None:
    """Four right rollouts of equal length: thinking early is dearer by one, late by the other."""
    grpo = token_advantages(SPLITS, ALIKE, RIGHT, **HOW, credit="rollout")
    assert not torch.cat(grpo).any()
    found = token_advantages(SPLITS, ALIKE, RIGHT, **HOW)
    stream = [value for (value,) in by_part(found, 0)]
    deep = [value for (value,) in by_part(found, DEEP)]
    assert stream == sorted(stream, reverse=True) and len({*stream}) == 4
    assert deep == pytest.approx([-value for value in stream])
    assert sum(stream) == pytest.approx(0) and by_part(found, ANSWER) == [{0.0}] * 4
    assert stream[0] == pytest.approx(0.3 * 0.1 * (5 - 2)), "not divided by the deviation"


def test_credit_is_as_fine_as_it_is_asked_for_and_none_is_for_wrong_answers() -> None:
    sentence = token_advantages(SPLITS, ALIKE, RIGHT, **HOW, credit="sentence")
    assert [*by_part(sentence, 0)[0]] == pytest.approx([0.03 * (2.25 - 1)])
    assert [*by_part(sentence, 1)[3]] == pytest.approx([0.03 * (2.75 - 3)])
    boundary = token_advantages(SPLITS, ALIKE, RIGHT, **HOW, credit="boundary")
    stage = token_advantages(SPLITS, ALIKE, RIGHT, **HOW)
    for one, all_of, some in zip(SPLITS, stage, boundary, strict=True):
        assert torch.equal(some, all_of * torch.tensor(one.bounds))
    wrong = torch.tensor([True, True, False, True])
    gated = token_advantages(SPLITS, ALIKE, wrong, **HOW)
    assert not gated[2].any()
    assert [*by_part(gated, 0)[0]] == pytest.approx([0.03 * ((2 + 4 + 8) / 3 - 2)])


def test_without_a_local_part_it_is_grpo_bit_for_bit() -> None:
    reward = torch.tensor([1.0, 0.1, 0.0, 1.1], dtype=torch.float64)
    right = reward > 0.5
    none = token_advantages(SPLITS, reward, right, weight=0.0, price=0.1)
    grpo = token_advantages(SPLITS, reward, right, weight=0.7, price=0.1, credit="rollout")
    worth = group_relative(reward[None])[0]
    for one, a, b, value in zip(SPLITS, none, grpo, worth, strict=True):
        assert torch.equal(a, b) and torch.equal(a, value.expand(len(one.parts)))


def test_a_ratio_may_rise_further_than_it_may_fall() -> None:
    old, new = torch.zeros(3), torch.log(torch.tensor([1.25, 1.4, 0.7]))
    worth = torch.tensor([1.0, 1.0, -1.0])
    found = clipped_loss(new, old, worth, 0.2, 0.28)
    assert found.item() == pytest.approx(-(1.25 + 1.28 - 0.8) / 3)


def rolled(model: StreamingCausalLM, limits: Limits = LIMITS, seed: int = 3) -> list:
    sources = make_problems(model, JOBS)
    groups = think(model, WaitK(k=1), sources, group=3, limits=limits, seed=(seed,))
    return [rollout for group in groups for rollout in group]


def test_log_probabilities_of_the_engine_are_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under the same masks of attention and of tokens, and positions; under others they differ."""
    model, temperature = short(), 1.0
    seen: dict[int, tuple[object, list[float]]] = {}
    choose = Outcomes._sample

    def watched(self: Outcomes, logits_PV: Tensor, states: Sequence, errors: dict) -> Tensor:
        tokens_P = choose(self, logits_PV, states, errors)
        log_p = (logits_PV / temperature).log_softmax(-1)
        for p, state in enumerate(states):
            seen.setdefault(id(state), (state, []))[1].append(float(log_p[p, tokens_P[p]]))
        return tokens_P

    monkeypatch.setattr(Outcomes, "_sample", watched)
    rollouts = rolled(model)
    with torch.no_grad():
        again = thought_log_probs(model, rollouts)
    assert len(seen) == len(rollouts) == 6
    for one, found, (_, engine) in zip(rollouts, again, seen.values(), strict=True):
        assert len(found) == len(one.written) == len(one.parts)
        torch.testing.assert_close(found, torch.tensor(engine)[: len(found)], atol=1e-5, rtol=0)
    with torch.no_grad():
        other = thought_log_probs(short("interleaved-thoughts"), rollouts)
    assert max(float((a - b).abs().max()) for a, b in zip(again, other, strict=True)) > 1e-3
    narrow = rolled(model, replace(LIMITS, streams=2))
    assert [one.written for one in narrow] == [one.written for one in rollouts]


def test_source_padding_and_what_was_forced_have_no_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = short()
    rollouts = rolled(model, replace(LIMITS, thought_tokens=2, depth=2))
    projected, project = [], model.project

    def watched(hidden_RD: Tensor) -> Tensor:
        projected.append(len(hidden_RD))
        return project(hidden_RD)

    monkeypatch.setattr(model, "project", watched)
    embedding = model.model.get_input_embeddings().weight
    together = thought_log_probs(model, rollouts)
    assert projected == [len(one.written) for one in rollouts], "rows of what was written alone"
    short_one = min(range(6), key=lambda i: len(rollouts[i].written))
    (alone,) = thought_log_probs(model, [rollouts[short_one]])
    grads = [
        torch.autograd.grad(each.sum(), embedding, retain_graph=True)[0]
        for each in (together[short_one], alone)
    ]
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-4)
    forced = [
        found[place]
        for one, found in zip(rollouts, together, strict=True)
        for place, where in enumerate(one.places)
        if not where.answers and not where.begins and where.num_tokens >= where.longest
    ]
    both = zip(rollouts, together, strict=True)
    forced += [found[len(one.thoughts) - 1] for one, found in both]  # depth 2: then the answer
    assert len(forced) > 6 and not torch.stack(forced).detach().any()
    (nothing,) = torch.autograd.grad(torch.stack(forced).sum(), embedding)
    assert not nothing.any()


def weights_of(model: StreamingCausalLM) -> list[Tensor]:
    return [weight.detach().clone() for weight in model.model.parameters()]


def test_where_all_rollouts_are_worth_the_same_nothing_is_learnt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "qualities", lambda instances: torch.zeros(len(instances)))
    model = short()
    plan = ThinkingPlan(num_sources=1, group=2, redraws=1, format_weight=0.0)
    run, before = ThinkingReinforcement(model, JOBS, plan, LIMITS), weights_of(model)
    told = run.advance()
    assert told["accuracy"] == told["kept"] == told["learnt"] == 0
    assert all(map(torch.equal, before, weights_of(model)))
    assert run.num_drawn == 2, "another problem was drawn in its place"


def test_thinking_that_costs_is_learnt_to_be_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is right here: what is left to learn is to think less."""

    def all_right(instances: Sequence) -> Tensor:
        return torch.ones(len(instances), dtype=torch.float64)

    monkeypatch.setattr(judging, "qualities", all_right)
    may_follow = Thinker.may_follow

    def few(self: Thinker, place: Place) -> tuple[list[int], list[int]]:
        """Three tokens to choose from: a random model would hardly ever skip."""
        allowed, _ = may_follow(self, place)
        other = self.ids.skip if place.begins else self.ids.end
        return allowed or [2 if place.answers else other, 70, 71], []

    monkeypatch.setattr(Thinker, "may_follow", few)
    plan = ThinkingPlan(
        num_sources=2, group=8, learning_rate=1e-2, weight=0.5, price=0.2, format_weight=0.0
    )
    run = ThinkingReinforcement(short(), JOBS, plan, replace(LIMITS, streams=16, depth=1))
    curve = [run.advance() for _ in range(5)]
    assert curve[-1]["stream_tokens"] < 0.7 * curve[0]["stream_tokens"]
    assert curve[-1]["think_rate"] < curve[0]["think_rate"]


def test_a_step_without_local_credit_is_one_of_grpo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "qualities", by_length)
    found = []
    for how in ({"weight": 0.0}, {"credit": "rollout"}):
        model = short()
        plan = ThinkingPlan(num_sources=2, group=4, passes=2, redraws=0, **how)
        told = ThinkingReinforcement(model, JOBS, plan, LIMITS).advance()
        assert told["learnt"] > 0 and told["moved"] > 0
        found.append(weights_of(model))
    assert all(map(torch.equal, *found))


def test_likelihood_is_the_cross_entropy_of_what_is_right_and_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its gradient: REINFORCE without a baseline, a mean over the tokens of what is learnt."""
    model = short()
    rollouts = rolled(model)
    right, cut = rollouts[:5], rollouts[0]
    spent = [one.spent(deep=False) + one.spent(deep=True) for one in right[1:]]
    most = max(spent) - 1
    good = [one for one, number in zip(right[1:], spent, strict=True) if number <= most]
    assert 0 < len(good) < 4, "some are too long"

    def judged(instances: Sequence) -> Tensor:
        known = [one.instance for one in right]
        return torch.tensor([any(i is one for one in known) for i in instances]).double()

    monkeypatch.setattr(judging, "qualities", judged)
    monkeypatch.setattr(hrpo, "think", lambda *_, **__: [rollouts[:3], rollouts[3:]])
    monkeypatch.setattr(ThoughtRollout, "is_whole", property(lambda one: one is not cut))
    plan = ThinkingPlan(
        num_sources=2, group=3, redraws=0, credit="likelihood", lengths=(most,), seed=3
    )

    log_p = torch.cat(thought_log_probs(model, good))
    cross_entropy = -log_p[log_p != 0].mean()
    wanted = torch.autograd.grad(cross_entropy, [*model.model.parameters()])
    run = ThinkingReinforcement(model, JOBS, plan, LIMITS)
    monkeypatch.setattr(run, "update", lambda: None)
    told = run.advance()
    assert told["reward"] == pytest.approx(len(good) / 6)
    assert told["learnt"] == int((log_p != 0).sum())
    for weight, gradient in zip(model.model.parameters(), wanted, strict=True):
        torch.testing.assert_close(weight.grad, gradient, atol=1e-6, rtol=1e-4)


def test_a_length_may_be_any_number() -> None:
    plan = ThinkingPlan(credit="likelihood", lengths=(10**20,))
    rollouts = rolled(short())[:2]
    assert torch.equal(
        judging.judge(rollouts, plan, 10**20).reward_G,
        judging.judge(rollouts, plan, None).reward_G,
    )


def test_likelihood_learns_nothing_where_nothing_is_right_and_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "qualities", lambda instances: torch.ones(len(instances)))
    model = short()
    plan = ThinkingPlan(num_sources=1, group=2, redraws=0, credit="likelihood", lengths=(1,))
    run, before = ThinkingReinforcement(model, JOBS, plan, LIMITS), weights_of(model)
    told = run.advance()
    assert told["accuracy"] == 1 and told["reward"] == told["kept"] == told["learnt"] == 0
    assert all(map(torch.equal, before, weights_of(model)))


MORE = [replace(JOBS[i % 2], index=i) for i in range(4)]


def test_a_curriculum_goes_back_and_ends_and_can_be_stopped_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entropies made up: the first length is passed, the second is too much."""
    monkeypatch.setattr(judging, "qualities", by_length)
    monkeypatch.setattr(ThoughtRollout, "is_whole", True)
    entropies = {5: 0.9, 30: 0.1}
    monkeypatch.setattr(ThinkingReinforcement, "_entropy", lambda _, length: entropies[length])
    short().save_pretrained(tmp_path / "model")

    def begin(steps: int) -> ThinkingReinforcement:
        plan = ThinkingPlan(
            num_steps=steps,
            num_sources=1,
            group=4,
            redraws=0,
            credit="likelihood",
            lengths=(5, 30),
            length_steps=2,
            least_entropy=0.5,
            held_out=2,
        )
        return ThinkingReinforcement(load(tmp_path / "model"), MORE, plan, LIMITS)

    run = begin(9)
    assert [one.job.index for one in run.sources] == [0, 1]
    assert [one.job.index for one in run.held_out] == [2, 3]
    whole = save(run, tmp_path / "whole")
    told = [(line["length"], line.get("entropy")) for line in whole]
    assert told == [(5, None), (5, 0.9), (30, None), (30, 0.1)]
    passed = save(begin(2), tmp_path / "passed")
    assert passed == whole[:2]
    stable, ended = (load(tmp_path / name).model.state_dict() for name in ("passed", "whole"))
    assert all(torch.equal(stable[name], ended[name]) for name in stable)
    assert whole[2]["learnt"] > 0, "and something was gone back from"
    card = (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    assert "as far as the answer was right and they had an end of their own, of 5 tokens" in card
    why = "At 30 tokens its entropy, 0.1, was below 0.5: the model went back to what 5 had come to."
    assert run.stopped == why and why in card.replace("\n", " ")

    save(begin(3), tmp_path / "out")
    assert save(begin(9), tmp_path / "out") == whole
    assert save(begin(20), tmp_path / "out") == whole, "it had ended"
    resumed = load(tmp_path / "out").model.state_dict()
    assert all(torch.equal(resumed[name], ended[name]) for name in ended)

    entropies[5] = 0.2
    none = begin(9)
    assert len(save(none, tmp_path / "none")) == 2 and "none was passed" in none.stopped
    began, kept = (load(tmp_path / name).model.state_dict() for name in ("model", "none"))
    assert all(torch.equal(began[name], kept[name]) for name in began)


def test_entropy_is_of_the_distributions_that_the_engine_drew_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, choose = short(), Outcomes._sample
    seen: dict[int, tuple[object, list[Tensor]]] = {}

    def watched(self: Outcomes, logits_PV: Tensor, states: Sequence, errors: dict) -> Tensor:
        for state, p_V in zip(states, logits_PV.softmax(-1), strict=True):
            seen.setdefault(id(state), (state, []))[1].append(p_V)
        return choose(self, logits_PV, states, errors)

    monkeypatch.setattr(Outcomes, "_sample", watched)
    rollouts = rolled(model)
    each = zip(rollouts, seen.values(), strict=True)
    drawn = [p_V for one, (_, found) in each for p_V in found[: len(one.written)]]
    chosen = [-torch.special.xlogy(p_V, p_V).sum() for p_V in drawn if p_V.max() < 1]
    assert 0 < len(chosen) < len(drawn), "some tokens were forced"
    wanted = float(torch.stack(chosen).mean())
    assert thought_entropy(model, rollouts) == pytest.approx(wanted, rel=1e-5)


def by_length(instances: Sequence) -> Tensor:
    return torch.tensor([i.prediction_length % 2 for i in instances], dtype=torch.float64)


@pytest.mark.parametrize("rank", [0, 2])
def test_it_goes_on_where_it_stopped_and_ends_as_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    monkeypatch.setattr(judging, "qualities", by_length)
    short().save_pretrained(tmp_path / "model")
    plan = ThinkingPlan(
        num_steps=2, num_sources=1, group=4, redraws=1, lora_rank=rank, learning_rate=0.01
    )

    def begin(steps: int = 2) -> ThinkingReinforcement:
        model = load(tmp_path / "model")
        return ThinkingReinforcement(model, JOBS, replace(plan, num_steps=steps), LIMITS)

    whole = save(begin(), tmp_path / "whole")
    card = (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    learnt = "Adapters, merged into the weights," if rank else "All weights"
    assert f"**Reinforced.** {learnt} were trained by reward: accuracy + 0.1 for an end of" in card
    first = save(begin(1), tmp_path / "out")
    curve = save(begin(), tmp_path / "out")
    assert curve == whole and first == whole[:1] and whole[1]["learnt"] > 0
    folders = (tmp_path / "model", tmp_path / "whole", tmp_path / "out")
    before, straight, resumed = (load(folder).model.state_dict() for folder in folders)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert any(not torch.equal(straight[name], before[name]) for name in straight)
    other = ThinkingReinforcement(load(tmp_path / "model"), JOBS, plan, LIMITS)
    other.limits = replace(LIMITS, depth=1)
    with pytest.raises(ValueError, match="depth was None, and is 1 now"):
        save(other, tmp_path / "out")


def test_what_is_no_number_is_neither_learnt_nor_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "qualities", by_length)
    short().save_pretrained(tmp_path / "model")
    plan = ThinkingPlan(num_sources=2, group=4, num_steps=1)
    run = ThinkingReinforcement(load(tmp_path / "model"), JOBS, plan, LIMITS)
    before = weights_of(run.model)
    judge = judging.judge

    def broken(*what: Any) -> judging.Judged:
        found = judge(*what)
        return found._replace(advantages=[each * torch.nan for each in found.advantages])

    monkeypatch.setattr(hrpo, "judge", broken)
    with pytest.raises(
        ValueError, match="gradient norm of step 1 is nan: nothing of it was learnt"
    ):
        save(run, tmp_path / "out")
    assert all(map(torch.equal, before, weights_of(run.model)))
    assert not (tmp_path / "out" / CURVE_FILE).read_text()
    assert not (tmp_path / "out" / "reinforcement.pt").exists()
