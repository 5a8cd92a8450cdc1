"""The algebra of advantages and of the clipped loss."""

import math

import pytest
import torch

from proactivellm.rl.advantage import clipped_loss, group_relative

SCORES = torch.tensor([[0.2, 0.4, 0.9, 0.1], [0.7, 0.7, 0.7, 0.7]], dtype=torch.float64)


def test_a_group_is_compared_with_itself_alone() -> None:
    found = group_relative(SCORES)
    assert torch.allclose(found.mean(-1), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert float(found[0].square().mean()) == pytest.approx(1, abs=1e-4)
    assert found[1].tolist() == [0, 0, 0, 0]  # nobody did better: nothing is to be learnt
    assert found[0].argsort().tolist() == SCORES[0].argsort().tolist()
    # A group's scale and offset do not matter, until the scale is kept.
    moved = group_relative(3 * SCORES + 5)
    torch.testing.assert_close(moved, found, atol=1e-4, rtol=0)
    centred = group_relative(SCORES, standardise=False)
    assert centred[0].tolist() == pytest.approx([-0.2, 0.0, 0.5, -0.3])
    torch.testing.assert_close(group_relative(3 * SCORES + 5, standardise=False), 3 * centred)


def test_the_loss_pulls_where_it_should_and_no_further_than_the_clip() -> None:
    old = torch.log(torch.tensor([0.5, 0.5, 0.5, 0.5], dtype=torch.float64))
    # Unmoved; moved up within the clip; beyond it with a good outcome; beyond it with a bad one.
    new = torch.log(torch.tensor([0.5, 0.55, 0.8, 0.8], dtype=torch.float64)).requires_grad_()
    worth = torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
    loss = clipped_loss(new, old, worth, 0.2)
    assert loss.item() == pytest.approx(-(1 + 1.1 + 1.2 - 1.6) / 4)
    loss.backward()
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([-0.25, -1.1 / 4, 0, 1.6 / 4])
    assert math.isclose(float(clipped_loss(old, old, 0 * worth, 0.2)), 0)
