"""The objective of `[distillation]` on a tiny model: values by hand, means, teachers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.laws import streams
from tests.models import save_tiny
from tests.train.samples import random_sample, random_schedules
from tests.two_groups import target_of, units_of
from torch import Tensor

from proactivellm.core.layout import grouped
from proactivellm.train.accumulation import share_counts
from proactivellm.train.block_attention import PACKED_ATTENTION, register
from proactivellm.train.learner import Learner
from proactivellm.train.objectives.divergence import jensen_shannon, mixed_kl
from proactivellm.train.objectives.taught import Taught
from proactivellm.train.objectives.teaching import Teaching
from proactivellm.train.prefixes import Prefix, as_batch, prefixed
from proactivellm.train.teacher import GatheredTeacher
from proactivellm.train.views import collate, packed_output, view_rows

ALL = 10_000  # tokens of a divergence: the whole vocabulary
Batch = dict[str, Tensor]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> streams.Recorder:
    model = streams.load(save_tiny("qwen3", tmp_path_factory.mktemp("tiny")))
    register()
    model.model.set_attn_implementation(PACKED_ATTENTION)
    return model


@pytest.fixture(scope="module")
def prefixes() -> list[Prefix]:
    """Of 4, 9 and 2 tokens."""
    rng, found = np.random.default_rng(3), []
    for units, tokens in ((5, 4), (4, 9), (3, 2)):
        sample = random_sample(rng, units, tokens)
        g = random_schedules(rng, sample, 1)[1]
        counted = [True] * tokens
        words = [[*unit] for unit in units_of(sample)[1:]]
        found.append(Prefix(units=words, tokens=target_of(sample), schedule=g, counted=counted))
    return found


def learner(model: streams.Recorder, chunk: int = 100, **keys: object) -> Learner:
    made = Learner(model.model, grouped(), [Taught(Teaching(**keys))])  # type: ignore[arg-type]
    made.rows_per_chunk = lambda num_views: chunk  # type: ignore[method-assign]
    return made


def batch_of(model: streams.Recorder, some: Sequence[Prefix], full: bool = True) -> Batch:
    # What was written stands beside samples, which this objective does not look at.
    beside = collate([each.packed(model.prompt, grouped(), [each.whole]) for each in some])
    return beside | as_batch(some, model.prompt, grouped(), full)


def distributions(model: streams.Recorder, some: Sequence[Prefix]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the full and of the partial view, and the tokens written."""
    packed = collate([p.packed(model.prompt, grouped(), [p.whole, p.schedule]) for p in some])
    hidden = packed_output(model.model, packed, grouped(), model.windows).last_hidden_state
    views, label = view_rows(hidden, packed)
    full, partial = model.parts.project(views).log_softmax(-1)
    return full.detach(), partial, label[1]


@pytest.mark.parametrize(
    ("loss", "mix"), [("kl", 0.3), ("jsd", 0.3), ("power", 0), ("log-ratio", 0), ("likelihood", 0)]
)
def test_the_loss_is_that_of_the_two_views(
    student: streams.Recorder, prefixes: list[Prefix], loss: str, mix: float
) -> None:
    keys = {"loss": loss, "mix": mix, "top_k": ALL, "alpha": 2.0}
    full, partial, label = distributions(student, prefixes)
    q, p = (each.gather(-1, label[:, None])[:, 0] for each in (partial, full))
    by_hand = {
        "kl": mixed_kl(full, partial, mix),
        "jsd": jensen_shannon(full, partial, mix),
        "power": -(p.exp() ** 2 - q.exp() ** 2).detach() * q,
        "log-ratio": -(p - q).detach() * q,
        "likelihood": -q,
    }[loss].mean()
    weights = [student.parts.embed.weight]
    expected = torch.autograd.grad(by_hand, weights)[0]
    for chunk in (100, 4):
        made = learner(student, chunk, **keys)
        out = made(**batch_of(student, prefixes, full=loss != "likelihood"))
        torch.testing.assert_close(out["loss"], by_hand, atol=1e-6, rtol=1e-5)
        entropy = -(partial.exp() * partial).sum(-1).mean()
        torch.testing.assert_close(out["parts"][1], entropy.detach(), atol=1e-5, rtol=1e-5)
        gradient = torch.autograd.grad(out["loss"], weights)[0]
        assert (gradient - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_means_are_those_of_the_window_whatever_its_micro_batches(
    student: streams.Recorder, prefixes: list[Prefix]
) -> None:
    weight = student.parts.embed.weight

    def gradient(made: Learner, parts: list[list[Prefix]], whole: bool) -> Tensor:
        batches = [batch_of(student, part) for part in parts]
        if whole:
            batches = share_counts(batches, made.count, lambda n: n, 1)
        losses = [made(**batch)["loss"] for batch in batches]
        return torch.autograd.grad(sum(losses) / (1 if whole else len(losses)), weight)[0]

    splits = [[prefixes[:1], prefixes[1:]], [[each] for each in prefixes]]
    for keys in ({}, {"keep_share": 0.5}):
        made = learner(student, loss="power", **keys)
        at_once = gradient(made, [prefixes], True)
        for split in splits:
            gap = (gradient(made, split, True) - at_once).abs().max()
            assert gap <= 1e-6 * at_once.abs().max() + 1e-9
            naive = (gradient(made, split, False) - at_once).abs().max()
            assert naive > 1e-2 * at_once.abs().max()


def test_what_is_not_counted_is_not_learnt(
    student: streams.Recorder, prefixes: list[Prefix]
) -> None:
    made, weight = learner(student, loss="likelihood"), student.parts.embed.weight

    def masked(one: Prefix, counted: list[bool]) -> Batch:
        each = Prefix(**{**vars(one), "counted": counted})
        return batch_of(student, [each], full=False)

    _, partial, label = distributions(student, prefixes[:1])
    q = partial.gather(-1, label[:, None])[:, 0]
    stop = made(**masked(prefixes[0], [True, True, True, False]))["loss"]
    torch.testing.assert_close(stop, -q[:3].mean(), atol=1e-6, rtol=1e-5)
    # A prompt whose rollouts are all wrong.
    wrong = made(**masked(prefixes[0], [False] * 4))["loss"]
    assert (torch.autograd.grad(wrong, weight)[0] == 0).all()


def test_dial_keeps_the_best_tokens_of_each(
    student: streams.Recorder, prefixes: list[Prefix]
) -> None:
    full, partial, label = distributions(student, prefixes)
    q, p = (each.gather(-1, label[:, None])[:, 0].detach() for each in (partial, full))
    score = (p - q).abs()
    each = zip(score.split([4, 9, 2]), (2, 4, 1), strict=True)
    kept = torch.cat([one >= one.topk(count).values[-1] for one, count in each])
    out = learner(student, loss="log-ratio", keep_share=0.4, keep_beta=0.0)(
        **batch_of(student, prefixes)
    )
    expected = (-(p - q) * q)[kept].sum() / 7
    torch.testing.assert_close(out["loss"].detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("top_k", [5, ALL])
def test_another_model_of_the_same_weights_is_the_same_teacher(
    student: streams.Recorder,
    prefixes: list[Prefix],
    top_k: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {"mix": 0.5, "top_k": top_k}
    own = learner(student, **keys)(**batch_of(student, prefixes))["loss"]
    teacher = GatheredTeacher(student, Teaching(teacher="x", top_k=top_k), ALL, 1024)
    teacher.chunk, sizes, project = 3, list[int](), student.project
    monkeypatch.setattr(
        student, "project", lambda rows: (sizes.append(len(rows)), project(rows))[1]
    )
    judged = teacher.judge(prefixes)
    assert max(sizes) == 3  # and never [B, T, V]
    assert judged["teacher_log_p"].shape == (3, 9, min(top_k, len(student.parts.embed.weight)))
    batch = batch_of(student, prefixes, full=False) | prefixed(judged)
    other = learner(student, 4, **keys, teacher="x")(**batch)["loss"]
    torch.testing.assert_close(other, own, atol=1e-5, rtol=1e-5)


def test_a_batch_model_teaches_in_its_own_layout(
    student: streams.Recorder, prefixes: list[Prefix], tmp_path: Path
) -> None:
    folder = save_tiny("llama", tmp_path)
    batch_model = streams.load(folder, layout="interleaved")
    one = prefixes[1]
    judged = GatheredTeacher(batch_model, Teaching(teacher="x"), ALL, 1024).judge([one])
    prompt = batch_model.prompt
    ids = [*prompt.source_head, *sum(map(list, one.units), []), *prompt.source_tail]
    ids += [*prompt.target_head, *one.tokens]
    with torch.no_grad():  # as transformers runs it: a causal mask over the whole text
        log_p = batch_model.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    rows = log_p[-len(one.tokens) - 1 : -1]
    expected = rows.gather(-1, torch.tensor(one.tokens)[:, None])[:, 0]
    torch.testing.assert_close(judged["teacher_token"][0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"loss": "power", "prefixes": "dataset"}, "is of what the student has written"),
        ({"keep_share": 0.5}, "keep_share chooses tokens of a reward"),
        ({"teacher_layout": "interleaved"}, "of another teacher: name it"),
        ({"teacher_view": "same"}, "must see more"),
        ({"loss": "likelihood", "teacher": "x"}, "has no teacher"),
    ],
)
def test_contradictions_are_refused(keys: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Teaching(**keys)  # type: ignore[arg-type]
