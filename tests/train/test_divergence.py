"""Divergences of distillation: identities of their gradients, limits, and what each one wants."""

import pytest
import torch
from torch import Tensor

from proactivellm.train.objectives.divergence import entropy, jensen_shannon, mixed_kl


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Log-probabilities of a teacher and logits of a student, fp64."""
    torch.manual_seed(0)
    logits = 2 * torch.randn(2, 7, 30, dtype=torch.float64)
    return logits[0].log_softmax(-1), logits[1].requires_grad_()


def gradient(loss_R: Tensor, student: Tensor) -> Tensor:
    return torch.autograd.grad(loss_R.sum(), student, retain_graph=True)[0]


def test_the_forward_kl_is_cross_entropy_with_soft_labels(pair: tuple[Tensor, Tensor]) -> None:
    log_p, student = pair
    log_q = student.log_softmax(-1)
    soft = -(log_p.exp() * log_q).sum(-1)
    ours = gradient(mixed_kl(log_p, log_q, 0.0), student)
    assert (ours - gradient(soft, student)).abs().max() <= 1e-12


def test_the_reverse_kl_is_a_policy_gradient_over_all_tokens(pair: tuple[Tensor, Tensor]) -> None:
    log_p, student = pair
    log_q = student.log_softmax(-1)
    reward = (log_p - log_q).detach()
    expected = -(log_q.detach().exp() * reward * log_q).sum(-1)
    ours = gradient(mixed_kl(log_p, log_q, 1.0), student)
    assert (ours - gradient(expected, student)).abs().max() <= 1e-12


def test_a_mix_of_kls_is_not_the_generalised_jensen_shannon(pair: tuple[Tensor, Tensor]) -> None:
    log_p, student = pair
    log_q = student.detach().log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    ends = [(p * (p / q).log()).sum(-1), (q * (q / p).log()).sum(-1)]
    for mix, expected in zip((0.0, 1.0), ends, strict=True):
        torch.testing.assert_close(mixed_kl(log_p, log_q, mix), expected, atol=1e-12, rtol=0)
        assert torch.equal(jensen_shannon(log_p, log_q, mix), mixed_kl(log_p, log_q, mix))
    for mix in (0.1, 0.5, 0.9):
        linear = mix * ends[1] + (1 - mix) * ends[0]
        torch.testing.assert_close(mixed_kl(log_p, log_q, mix), linear, atol=1e-12, rtol=0)
        middle = mix * p + (1 - mix) * q
        by_hand = mix * (p * (p / middle).log()) + (1 - mix) * (q * (q / middle).log())
        ours = jensen_shannon(log_p, log_q, mix)
        torch.testing.assert_close(ours, by_hand.sum(-1), atol=1e-12, rtol=0)
        assert (ours < 0.9 * linear).all()
    torch.testing.assert_close(jensen_shannon(log_p, log_p, 0.3), torch.zeros_like(ends[0]))


def test_forward_covers_two_modes_and_reverse_picks_one() -> None:
    place = torch.arange(21, dtype=torch.float64)

    def bump(middle: float) -> Tensor:
        return (-((place - middle) ** 2) / 2.9).softmax(-1)

    teacher = (0.55 * bump(5) + 0.45 * bump(15) + 1e-9).log().log_softmax(-1)[None]
    found, reached = {}, {}
    for mix in (0.0, 1.0):
        student = torch.tensor([7.0, 0.5], dtype=torch.float64, requires_grad=True)  # one bump
        optimizer = torch.optim.Adam([student], lr=0.15)
        for _ in range(150):
            log_q = (-((place - student[0]) ** 2) * torch.exp(-2 * student[1]) / 2).log_softmax(-1)
            loss = mixed_kl(teacher, log_q[None], mix).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found[mix] = log_q.detach()
        # Reinforced by a reward at the other mode, the student that gave it up does not find it.
        optimizer = torch.optim.Adam([student], lr=0.15)
        for _ in range(40):
            log_q = (-((place - student[0]) ** 2) * torch.exp(-2 * student[1]) / 2).log_softmax(-1)
            reward = (log_q.exp() * (place == 15)).sum()
            optimizer.zero_grad()
            (-reward).backward()
            # Of so small a chance nothing is ever drawn.
            if float(reward) > 1e-6:
                optimizer.step()
        reached[mix] = float(reward)
    assert 0.4 < float(found[0.0][:11].exp().sum()) < 0.65
    assert float(found[1.0][:11].exp().sum()) > 0.99
    wide, narrow = float(entropy(found[0.0])), float(entropy(found[1.0]))
    assert wide > float(entropy(teacher)[0]) > narrow + 0.5
    assert reached[0.0] > 0.3 and reached[1.0] < 1e-6


def _visits(log_p: Tensor) -> Tensor:
    """How often a chain that starts in state 0 is in each state within twelve steps."""
    state = torch.eye(len(log_p), dtype=torch.float64)[0]
    total = state.clone()
    for _ in range(11):
        state = state @ log_p.exp()
        total = total + state
    return total / 12


def test_a_student_of_teacher_prefixes_does_worse_on_its_own() -> None:
    # The teacher goes round three states, and knows the way back from five that it never enters.
    logits = torch.zeros(8, 8, dtype=torch.float64)
    logits[torch.arange(8), torch.tensor([1, 2, 0, 0, 0, 0, 0, 0])] = 40
    log_p, loss = logits.log_softmax(-1), {}
    for on_policy in (False, True):
        weights = torch.zeros(8, 8, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([weights], lr=0.2)
        for _ in range(60):
            # A tenth of what it writes is chance, whatever it learns.
            log_q = (0.9 * weights.softmax(-1) + 0.1 / 8).log()
            # Whose prefixes these are is no matter of the gradient: how often, not how likely.
            visits = _visits(log_q.detach() if on_policy else log_p)
            optimizer.zero_grad()
            (visits * mixed_kl(log_p, log_q, 0.0)).sum().backward()
            optimizer.step()
        log_q = log_q.detach()
        loss[on_policy] = float((_visits(log_q) * mixed_kl(log_p, log_q, 0.0)).sum())
    assert loss[True] < 0.8 * loss[False]
