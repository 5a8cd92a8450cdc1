"""Rewards of sampled tokens: bounds, signs, limits, gradients by hand, which tokens are kept."""

import pytest
import torch
from torch import Tensor

from proactivellm.train.objectives.divergence import mixed_kl
from proactivellm.train.objectives.sampled import (
    correct_and_short,
    dial_score,
    log_ratio,
    num_kept,
    policy_loss,
    power_difference,
    top_tokens,
)


@pytest.fixture
def tokens() -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens, of all sizes down to e^-40, some of them alike."""
    torch.manual_seed(0)
    log_p, log_q = -40 * torch.rand(2, 4000, dtype=torch.float64) ** 3
    log_q[:9] = log_p[:9]
    return log_p, log_q


@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0, 50.0])
def test_the_power_reward_is_bounded_and_has_the_sign_of_the_log_ratio(
    tokens: tuple[Tensor, Tensor], alpha: float
) -> None:
    log_p, log_q = tokens
    reward = power_difference(log_p, log_q, alpha)
    assert reward.abs().max() <= 1 and (reward[:9] == 0).all()
    # Where both powers round to 0 there is nothing left to compare.
    seen = torch.maximum(log_p, log_q) * alpha > -700
    assert (reward.sign() == (log_p - log_q).sign())[seen].all()


def test_the_power_reward_goes_to_the_log_ratio(tokens: tuple[Tensor, Tensor]) -> None:
    log_p, log_q = (each.clamp(min=-6) for each in tokens)
    gaps = [
        float((power_difference(log_p, log_q, alpha) / alpha - (log_p - log_q)).abs().max())
        for alpha in (1e-2, 1e-3, 1e-4)
    ]
    assert gaps[0] < 0.3 and gaps[2] < 2e-3
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)


def test_the_gradient_is_minus_the_reward_times_that_of_the_log_probability() -> None:
    logits = torch.tensor([[0.3, -0.2, 1.0], [0.0, 2.0, -1.0]], dtype=torch.float64)
    logits.requires_grad_()
    written = torch.tensor([2, 0])
    log_q = logits.log_softmax(-1).gather(-1, written[:, None])[:, 0]
    log_p = torch.tensor([0.9, 0.001], dtype=torch.float64).log()
    q = logits.detach().softmax(-1)
    one_hot = torch.nn.functional.one_hot(written, 3)
    for reward in (power_difference(log_p, log_q, 5.0), log_ratio(log_p, log_q)):
        assert not reward.requires_grad  # of what was drawn, and of how good it was
        (ours,) = torch.autograd.grad(policy_loss(log_q, reward).sum(), logits, retain_graph=True)
        by_hand = -reward[:, None] * (one_hot - q)
        torch.testing.assert_close(ours, by_hand, atol=1e-12, rtol=0)
    assert ours[0, 2] < 0 < ours[1, 0]  # the first token gains, the second loses


def test_the_score_is_between_the_log_ratio_and_the_difference(
    tokens: tuple[Tensor, Tensor],
) -> None:
    log_p, log_q = tokens
    ratio, difference = (log_p - log_q).abs(), (log_p.exp() - log_q.exp()).abs()
    torch.testing.assert_close(dial_score(log_p, log_q, 0.0), ratio)
    torch.testing.assert_close(dial_score(log_p, log_q, 1.0), difference, atol=1e-12, rtol=1e-9)
    for beta in (0.5, 1.2):
        score = dial_score(log_p, log_q, beta)
        assert score.isfinite().all() and (score[:9] == 0).all()
        by_hand = ratio[9:] ** (1 - beta) * difference[9:] ** beta
        torch.testing.assert_close(score[9:], by_hand, atol=1e-12, rtol=1e-9)


def test_the_best_share_of_each_response_is_kept() -> None:
    response = torch.tensor([1, 0, 0, -1, 0, 1, 0, 0, 2])
    score = torch.tensor([1.0, 5, 4, 99, 3, 2, 2, 1, 0])
    kept = top_tokens(score, response, 0.4)
    assert kept.nonzero()[:, 0].tolist() == [1, 2, 5, 8]  # two of five, one of two, one of one
    assert num_kept(torch.tensor([5, 2, 1, 0]), 0.4).tolist() == [2, 1, 1, 0]
    assert top_tokens(score, response, 1.0).tolist() == (response >= 0).tolist()


def _distil(alpha: float | None, seed: int) -> tuple[list[float], Tensor, float]:
    """A Markov chain learns from one that never writes most tokens: KL, gradient norms, largest r.

    The student is close, and writes each forbidden token once in a long while.
    """
    drawn, double = torch.Generator().manual_seed(seed), torch.float64
    logits = torch.randn(50, 50, generator=drawn, dtype=double)
    rank = torch.rand(50, 50, generator=drawn).argsort(-1)
    logits = logits - 40 * (rank >= 4)
    log_p = logits.log_softmax(-1)
    near = (logits + 0.3 * torch.randn(50, 50, generator=drawn, dtype=double)).softmax(-1)
    student = (0.997 * near + 0.003 / 50).log().requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.01)
    kl, norms, largest = list[float](), list[float](), 0.0
    for _ in range(80):
        before, written = torch.randint(50, (2,), generator=drawn), list[Tensor]()
        prefix = [before]
        for _ in range(8):
            chances = student.detach()[prefix[-1]].softmax(-1)
            written.append(torch.multinomial(chances, 1, generator=drawn)[:, 0])
            prefix.append(written[-1])
        at, token = torch.cat(prefix[:-1]), torch.cat(written)
        log_q = student.log_softmax(-1)[at, token]
        teacher = log_p[at, token]
        reward = log_ratio(teacher, log_q)
        if alpha is not None:
            reward = power_difference(teacher, log_q, alpha)
        optimizer.zero_grad()
        (policy_loss(log_q, reward).sum() / len(token)).backward()
        assert student.grad is not None
        norms.append(float(student.grad.norm()))
        largest = max(largest, float(reward.abs().max()))
        optimizer.step()
        kl.append(float(mixed_kl(log_p, student.detach().log_softmax(-1), 1.0).mean()))
    return kl, torch.tensor(norms), largest


def test_a_teacher_that_is_sure_makes_the_log_ratio_leap_and_not_the_power() -> None:
    kl, norms, largest = _distil(None, 0)
    assert largest > 20 and norms.max() > 50 * norms.median()
    kl, norms, largest = _distil(1.0, 0)
    assert largest <= 1 and norms.max() < 10 * norms.median()
    assert kl[0] > kl[27] > kl[53] > kl[-1] and kl[-1] < 0.9 * kl[0]


NEEDED = 8  # steps of an answer that is sure to be correct
MOST = 30


def _think(stop_T: Tensor, drawn: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """64 thoughts of a model that may stop after each step.

    Their lengths, whether each is correct (one that is too short by luck, one time in five), and
    log-probabilities [64, T] of what was done at each step, 0 after the end.
    """
    stops = torch.rand(64, MOST, generator=drawn) < stop_T.detach().sigmoid()
    stops[:, -1] = True
    length = stops.int().argmax(-1) + 1
    correct = (length >= NEEDED) | (torch.rand(64, generator=drawn) < 0.2)
    step_T = torch.arange(1, MOST + 1)
    goes_on = torch.nn.functional.logsigmoid(-stop_T) * (step_T < length[:, None])
    ends = torch.nn.functional.logsigmoid(stop_T) * (step_T == length[:, None])
    return length, correct, goes_on + ends


def _shorten(longest: int) -> list[tuple[float, float]]:
    """Mean length and accuracy, update by update."""
    drawn = torch.Generator().manual_seed(0)
    stop_T = torch.full((MOST,), -2.5, dtype=torch.float64)
    stop_T[: NEEDED - 1] = -5
    stop_T.requires_grad_()
    optimizer, told = torch.optim.Adam([stop_T], lr=0.2), list[tuple[float, float]]()
    for _ in range(80):
        length, correct, log_q = _think(stop_T, drawn)
        told.append((float(length.double().mean()), float(correct.double().mean())))
        kept = correct_and_short(correct.double(), length <= longest, 1.0)
        if kept.any():
            optimizer.zero_grad()
            (-log_q[kept].sum() / length[kept].sum()).backward()
            optimizer.step()
    return told


def test_thoughts_become_as_short_as_they_can_and_no_shorter_unless_told() -> None:
    (rambling, _), *_, (needed, accuracy) = _shorten(longest=14)
    assert rambling > 15 and NEEDED <= needed < 10 and accuracy == 1
    # Below what is needed, luck is all that is left to learn from.
    *_, (short, accuracy) = _shorten(longest=NEEDED - 3)
    assert short < NEEDED - 2 and accuracy < 0.5


def test_likelihood_of_the_correct_and_short_is_reinforce() -> None:
    stop_T = torch.full((MOST,), -2.0, dtype=torch.float64, requires_grad=True)
    length, correct, log_q = _think(stop_T, torch.Generator().manual_seed(1))
    kept = correct_and_short(correct.double(), length <= 12, 1.0)
    assert 5 < int(kept.sum()) < 60
    reward = (correct & (length <= 12)).double()[:, None]
    theirs = policy_loss(log_q, reward.expand_as(log_q)).sum()
    gradients = [
        torch.autograd.grad(loss, stop_T, retain_graph=True)[0]
        for loss in (-log_q[kept].sum(), theirs)
    ]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)
    nothing = correct_and_short(torch.zeros(64), length <= 12, 1.0)
    assert not nothing.any()  # a prompt that is never answered teaches nothing
