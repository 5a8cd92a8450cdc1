"""Objectives over target rows against torch's own functions and hand-made limits."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from proactivellm.train.head import gathering
from proactivellm.train.objectives.distillation import Distillation, top_k_kl
from proactivellm.train.objectives.likelihood import Likelihood, cross_entropy
from proactivellm.train.recipe import Objectives
from proactivellm.train.rows import row_sums, rows_within

R, V, D = 23, 40, 8
Project = Callable[[torch.Tensor], torch.Tensor]


def learnt(
    project: Project, hidden: torch.Tensor, label: torch.Tensor, chunk: int = R, **keys: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """The means of L_batch, L_MSLM and, if it has a weight, KL; and the loss."""
    table = Objectives(**keys)
    terms = [Likelihood(table), *([Distillation(table)] if table.kl_weight else [])]
    needs_full = any(term.needs_full for term in terms)
    labels = label.expand(len(hidden), -1)
    means = row_sums(terms, project, (hidden, labels), needs_full, chunk) / len(label)
    weights = torch.tensor([weight for term in terms for weight in term.weights])
    return means, (weights * means).sum()


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


def test_kl_over_the_top_of_the_teacher_and_the_rest_as_one(logits):
    teacher, student, _ = logits
    p, q = teacher.softmax(-1).double(), student.softmax(-1).double()
    expected = reverse = 0.0
    for row in range(R):
        top = p[row].argsort(descending=True)[:3]
        p_all = [*p[row, top].tolist(), 1 - float(p[row, top].sum())]
        q_all = [*q[row, top].tolist(), 1 - float(q[row, top].sum())]
        expected += sum(a * math.log(a / b) for a, b in zip(p_all, q_all, strict=True))
        reverse += sum(b * math.log(b / a) for a, b in zip(p_all, q_all, strict=True))
    log_p, log_q = p.log().float(), q.log().float()
    assert float(top_k_kl(log_p, log_q, 3, "forward")) == pytest.approx(expected, rel=1e-5)
    assert float(top_k_kl(log_p, log_q, 3, "reverse")) == pytest.approx(reverse, rel=1e-5)


@pytest.mark.parametrize("sharpness", [0.3, 2.0, 30.0])
@pytest.mark.parametrize("top_k", [1, 3, V - 1, V])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_divergence_is_least_where_the_student_is_the_teacher(
    logits, direction, top_k, sharpness
):
    teacher, start, _ = logits
    log_p = (sharpness * teacher).log_softmax(-1)

    def divergence(student: torch.Tensor) -> torch.Tensor:
        return top_k_kl(log_p, student.log_softmax(-1), top_k, direction)

    same = (sharpness * teacher).requires_grad_()
    value = divergence(same)
    (gradient,) = torch.autograd.grad(value, same)
    assert abs(float(value.detach())) <= 1e-4 and gradient.abs().max() <= 3e-6
    for scale in (1e-2, 0.1, 1.0, 10.0):  # near and far
        for seed in range(5):
            noise = torch.randn(R, V, generator=torch.Generator().manual_seed(seed))
            assert divergence(same.detach() + scale * noise) >= -1e-5
    if (sharpness, top_k) == (0.3, 3):
        student = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([student], lr=0.1)
        for _ in range(200):
            optimizer.zero_grad()
            divergence(student).backward()
            optimizer.step()
        top = log_p.topk(top_k).indices
        reached = student.log_softmax(-1).gather(-1, top).exp()
        assert (reached - log_p.gather(-1, top).exp()).abs().max() <= 2e-3


def test_views_that_no_loss_looks_at_are_not_there(rows):
    hidden, label, output = rows
    full, partial, _ = learnt(output, hidden, label, label_smoothing=0.1)[0]
    only = {"kl_weight": 0.0, "label_smoothing": 0.1}
    losses, _ = learnt(output, hidden[1:], label, batch_weight=0.0, **only)
    torch.testing.assert_close(losses[1], partial, rtol=1e-5, atol=0)
    assert losses[0] == 0 and len(losses) == 2
    losses, _ = learnt(output, hidden[:1], label, mslm_weight=0.0, **only)
    torch.testing.assert_close(losses[0], full, rtol=1e-5, atol=0)
    assert losses[1] == 0


def test_no_gradient_reaches_the_teacher(rows):
    hidden, label, output = rows
    keys = {"batch_weight": 0.0, "mslm_weight": 0.0, "kl_weight": 1.0, "kl_top_k": 5}
    learnt(output, hidden, label, **keys)[1].backward()
    assert hidden.grad is not None
    assert (hidden.grad[0] == 0).all()
    assert (hidden.grad[1:].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("rows_per_chunk", [1, 7, R - 1, R, 1000])
def test_chunks_change_neither_losses_nor_gradients(rows, rows_per_chunk):
    hidden, label, output = rows

    def run(size: int) -> tuple[torch.Tensor, ...]:
        keys = {"kl_weight": 0.5, "kl_top_k": 6, "label_smoothing": 0.1}
        losses, loss = learnt(output, hidden, label, size, **keys)
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
        _, loss = learnt(project, hidden, label, 5)
    assert sizes == [5] * 3 * 4 + [3] * 3  # four chunks of five rows and one of three, three views
    assert max(saved, default=0) <= hidden.numel()  # no logits are kept for the backward pass
    loss.backward()
    assert len(sizes) == 30  # they are computed again


def peak_bytes(run: Callable[[], None]) -> int:
    """Most memory of tensors at once that a function allocates."""
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    most = alive = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


@pytest.mark.parametrize("views", [2, 3])
def test_a_large_vocabulary_stays_within_its_budget(views):
    vocabulary, budget, rows = 152_000, 48, 40
    torch.manual_seed(0)
    output = torch.nn.Linear(4, vocabulary, bias=False)
    hidden = torch.randn(views, rows, 4, requires_grad=True)
    label = torch.randint(0, vocabulary, (rows,))
    seen: list[tuple[torch.Tensor, ...]] = []

    def run(chunk: int) -> None:
        keys = {"kl_weight": 0.5, "label_smoothing": 0.1}
        project = gathering(output) if chunk < rows else output
        losses, loss = learnt(project, hidden, label, chunk, **keys)
        gradients = torch.autograd.grad(loss, [hidden, output.weight])
        seen.append((losses, *gradients))

    chunk = rows_within(budget, vocabulary, views)
    assert 5 < chunk < rows / 2
    weights = output.weight.numel() * 4  # its gradient: one, whatever the number of chunks
    assert peak_bytes(lambda: run(chunk)) <= (budget << 20) + weights
    assert peak_bytes(lambda: run(rows)) > 1.5 * (budget << 20) + 3 * weights
    for ours, whole in zip(*seen, strict=True):
        assert (ours - whole).abs().max() <= 1e-6 * whole.abs().max()


def test_the_budget_of_the_bundled_models_takes_their_batches_whole():
    assert rows_within(1024, 8000, 2) > 4096
    assert rows_within(1024, 152_000, 2) == (1 << 30) // (4 * 152_000 * 5)
    assert rows_within(1, 152_000, 2) == 1  # never none


def test_partial_views_are_averaged(rows):
    hidden, label, output = rows
    both, _ = learnt(output, hidden, label, kl_top_k=V)
    one, _ = learnt(output, hidden[[0, 1]], label, kl_top_k=V)
    two, _ = learnt(output, hidden[[0, 2]], label, kl_top_k=V)
    torch.testing.assert_close(both, (one + two) / 2, rtol=1e-5, atol=0)


def test_losses_are_means_over_rows(rows):
    hidden, label, output = rows
    losses, _ = learnt(output, hidden, label)
    torch.testing.assert_close(losses[0], F.cross_entropy(output(hidden[0]), label))


def test_a_row_objective_weighs_the_means_of_its_parts():
    class Means:
        def row_means(self, objective):
            return torch.tensor([2.0, 5.0], requires_grad=True)

    table = Objectives(batch_weight=3.0, mslm_weight=7.0)
    learnt_now = Likelihood(table)(Means())
    assert learnt_now["loss"] == 3 * 2 + 7 * 5 and learnt_now["loss"].requires_grad
    assert learnt_now["parts"].tolist() == [2.0, 5.0] and not learnt_now["parts"].requires_grad


def test_an_objective_of_weight_0_is_not_there():
    nothing = Objectives(batch_weight=0.0, mslm_weight=0.0, kl_weight=0.0)
    assert Likelihood.make(nothing, None, None) is Distillation.make(nothing, None, None) is None
    assert not Likelihood.wanted(nothing) and Likelihood.wanted(Objectives())


@pytest.mark.parametrize("key", ["mslm_weight", "kl_weight"])
def test_an_objective_of_partial_views_wants_some(key):
    keys = {"mslm_weight": 0.0, "kl_weight": 0.0, "num_partial": 0}
    assert Objectives(**keys).num_partial == 0
    with pytest.raises(ValueError, match=f"set {key} to 0, or num_partial to 1"):
        Objectives(**keys | {key: 0.1})
