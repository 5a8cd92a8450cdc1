"""The parts of the objective against torch's own functions and hand-made limits."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from proactivellm.train.losses import Objective, combine, cross_entropy, top_k_kl, view_losses

R, V, D = 23, 40, 8


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Teacher and student logits, and labels."""
    torch.manual_seed(0)
    return 2 * torch.randn(R, V), 2 * torch.randn(R, V), torch.randint(0, V, (R,))


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor, torch.nn.Linear]:
    """Hidden states of three views, labels, an output layer."""
    torch.manual_seed(1)
    output = torch.nn.Linear(D, V, bias=False)
    return torch.randn(3, R, D, requires_grad=True), torch.randint(0, V, (R,)), output


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_cross_entropy_is_that_of_torch(logits, smoothing):
    _, student, label = logits
    ours = cross_entropy(student.log_softmax(-1), label, smoothing)
    theirs = F.cross_entropy(student, label, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("top_k", [V, 10 * V])
def test_kl_over_all_tokens_is_that_of_torch(logits, top_k):
    teacher, student, _ = logits
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    theirs = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
    torch.testing.assert_close(top_k_kl(log_p, log_q, top_k, "forward"), theirs, rtol=1e-5, atol=0)
    theirs = F.kl_div(log_p, log_q, reduction="sum", log_target=True)
    torch.testing.assert_close(top_k_kl(log_p, log_q, top_k, "reverse"), theirs, rtol=1e-5, atol=0)


def test_kl_over_the_top_of_the_teacher(logits):
    teacher, student, _ = logits
    p, q = teacher.softmax(-1), student.softmax(-1)
    log_p, log_q = p.log(), q.log()
    expected = reverse = 0.0
    for row in range(R):
        for token in p[row].argsort(descending=True)[:3]:
            expected += float(p[row, token] * (p[row, token] / q[row, token]).log())
            reverse += float(q[row, token] * (q[row, token] / p[row, token]).log())
    assert float(top_k_kl(log_p, log_q, 3, "forward")) == pytest.approx(expected)
    assert float(top_k_kl(log_p, log_q, 3, "reverse")) == pytest.approx(reverse, rel=1e-4)
    assert float(top_k_kl(log_p, log_p, 3, "forward")) == pytest.approx(0, abs=1e-4)


def test_views_that_no_loss_looks_at_are_not_there(rows):
    hidden, label, output = rows
    with_full = Objective(label_smoothing=0.1)
    full, partial, _ = view_losses(output, hidden, label, with_full)
    only_partial = Objective(batch_weight=0.0, kl_weight=0.0, label_smoothing=0.1)
    assert not only_partial.needs_full and with_full.needs_full
    losses = view_losses(output, hidden[1:], label, only_partial)
    torch.testing.assert_close(losses[1], partial, rtol=1e-5, atol=0)
    assert losses[0] == 0 and losses[2] == 0
    only_full = Objective(mslm_weight=0.0, kl_weight=0.0, label_smoothing=0.1)
    losses = view_losses(output, hidden[:1], label, only_full)
    torch.testing.assert_close(losses[0], full, rtol=1e-5, atol=0)
    assert losses[1] == 0 and losses[2] == 0


def test_no_gradient_reaches_the_teacher(rows):
    hidden, label, output = rows
    objective = Objective(batch_weight=0.0, mslm_weight=0.0, kl_weight=1.0, kl_top_k=5)
    combine(view_losses(output, hidden, label, objective), objective).backward()
    assert hidden.grad is not None
    assert (hidden.grad[0] == 0).all()
    assert (hidden.grad[1:].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("rows_per_chunk", [1, 7, R - 1, R, 1000])
def test_chunks_change_neither_losses_nor_gradients(rows, rows_per_chunk):
    hidden, label, output = rows

    def run(size: int) -> tuple[torch.Tensor, ...]:
        objective = Objective(kl_weight=0.5, kl_top_k=6, label_smoothing=0.1, rows_per_chunk=size)
        losses = view_losses(output, hidden, label, objective)
        loss = combine(losses, objective)
        return losses, *torch.autograd.grad(loss, [hidden, output.weight])

    for ours, whole in zip(run(rows_per_chunk), run(10 * R), strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-7)


def test_logits_of_one_chunk_only_are_alive_at_a_time(rows):
    hidden, label, output = rows
    sizes = []

    def project(hidden_RD: torch.Tensor) -> torch.Tensor:
        sizes.append(hidden_RD.shape[0])
        return output(hidden_RD)

    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel()) or t, lambda t: t
    ):
        losses = view_losses(project, hidden, label, Objective(rows_per_chunk=5))
    assert sizes == [5] * 3 * 4 + [3] * 3  # four chunks of five rows and one of three, three views
    assert max(saved, default=0) <= hidden.numel()  # no logits are kept for the backward pass
    combine(losses, Objective()).backward()
    assert len(sizes) == 30  # they are computed again


def test_partial_views_are_averaged(rows):
    hidden, label, output = rows
    objective = Objective(kl_top_k=V)
    both = view_losses(output, hidden, label, objective)
    one = view_losses(output, hidden[[0, 1]], label, objective)
    two = view_losses(output, hidden[[0, 2]], label, objective)
    torch.testing.assert_close(both, (one + two) / 2, rtol=1e-5, atol=0)


def test_losses_are_means_over_rows_and_combined_by_their_weights(rows):
    hidden, label, output = rows
    objective = Objective(batch_weight=2.0, mslm_weight=3.0, kl_weight=5.0)
    losses = view_losses(output, hidden, label, objective)
    torch.testing.assert_close(losses[0], F.cross_entropy(output(hidden[0]), label))
    expected = 2 * losses[0] + 3 * losses[1] + 5 * losses[2]
    torch.testing.assert_close(combine(losses, objective), expected)


def test_without_kl_weight_no_kl_is_computed(rows):
    hidden, label, output = rows
    losses = view_losses(output, hidden, label, Objective(kl_weight=0.0))
    assert losses[2].item() == 0.0
    with_kl = view_losses(output, hidden, label, Objective(kl_weight=0.1))
    torch.testing.assert_close(losses[:2], with_kl[:2])


def test_objective_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Objective().kl_weight = 1.0
