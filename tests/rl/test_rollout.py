"""Rollouts: seeded, whatever runs beside them; their log-probabilities come out of one forward."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import NO_PROMPT, PROMPT, Recorder
from tests.models import save_tiny

from proactivellm.evaluation.evaluate import make_jobs
from proactivellm.policy.head import Head
from proactivellm.policy.learned import Learned
from proactivellm.rl.recompute import recompute
from proactivellm.rl.rollout import Trajectory, make_sources, roll_out
from proactivellm.rl.sampled import SampledLearned, log_prob, write_logit
from proactivellm.rl.tuned import TunedHead
from proactivellm.stream import Job

TEXTS = ["ein paar kurze Wörter hier", "das ist noch ein Satz mit mehr Wörtern", "und drei mehr"]
JOBS = make_jobs(TEXTS, TEXTS)
POLICY = Learned(threshold=0.5, lag_weight=0.2, min_lag=0)


def random_head(width: int = 32, scale: float = 0.1) -> Head:
    drawn = torch.Generator().manual_seed(7)
    return Head(
        hidden_D=scale * torch.randn(width, generator=drawn, dtype=torch.float64),
        scalar_S=torch.tensor([0.1, -0.2], dtype=torch.float64),
        bias=-0.5,
        scalars=("entropy", "log_top1"),
        about={},
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    families = ("qwen2", "gemma3_text")
    return {name: save_tiny(name, tmp_path_factory.mktemp(name)) for name in families}


def rollouts(
    model: Recorder, policy: Learned = POLICY, lanes: int = 5, seed: Sequence[int] = (3,)
) -> list[list[Trajectory]]:
    drawn = SampledLearned.like(policy, random_head(), temperature=0.8)
    sources = make_sources(model, JOBS)
    return roll_out(model, drawn, sources, group=3, seed=seed, num_lanes=lanes)


def actions(groups: list[list[Trajectory]]) -> list[list[list[bool]]]:
    return [[each.write_N.tolist() for each in group] for group in groups]


@pytest.mark.parametrize(
    ("family", "layout", "prompt", "boundary"),
    [
        ("qwen2", "grouped", PROMPT, "token"),
        ("gemma3_text", "interleaved", PROMPT, "token"),  # windows shorter than the streams
        ("qwen2", "interleaved", NO_PROMPT, "word"),
    ],
)
def test_log_probabilities_come_out_of_one_forward(
    folders: dict[str, Path], family: str, layout: str, prompt: object, boundary: str
) -> None:
    model = streams.load(folders[family], prompt, layout=layout, boundary=boundary)  # type: ignore[arg-type]
    head, mixed = TunedHead(random_head(), torch.eye(34, dtype=torch.float64)), rollouts(model)
    flat = [each for group in mixed for each in group]
    again = recompute(model, flat, ("entropy", "log_top1"))
    num_read = num_written = 0
    for one, inputs_NF in zip(flat, again, strict=True):
        torch.testing.assert_close(inputs_NF, one.inputs_NF, atol=1e-4, rtol=1e-4)
        logit_N = write_logit(POLICY, 0.8, head(inputs_NF), one.units_read_N, one.words_written_N)
        assert (log_prob(logit_N, one.write_N) - one.log_prob_N).abs().max() <= 1e-5
        num_read += int((~one.write_N).sum())
        num_written += int(one.write_N.sum())
    assert num_read > 4 and num_written > 4
    # Under another mask they are others: here, probes that ended in READ see all of the source.
    read = [one for one in flat if not one.write_N.all()]
    whole = [len(one.source.units) for one in read]
    late = [
        replace(one, units_read_N=one.units_read_N.where(one.write_N, units))
        for one, units in zip(read, whole, strict=True)
    ]
    gaps = [
        (inputs_NF - one.inputs_NF[:, :-2]).abs().amax(-1)[~one.write_N].max()
        for one, inputs_NF in zip(read, recompute(model, late, ()), strict=True)
    ]
    assert max(gaps) > 1e-2


def test_a_large_vocabulary_is_looked_at_in_chunks(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = streams.load(folders["qwen2"], PROMPT, boundary="token")
    flat = [each for group in rollouts(model) for each in group]
    num_rows, chunks = [], []
    project = model.project
    monkeypatch.setattr(
        model, "project", lambda rows: (num_rows.append(len(rows)), project(rows))[1]
    )
    for budget in (1024, 0):  # all at once; one row
        monkeypatch.setattr("proactivellm.rl.recompute._LOGITS_MIB", budget)
        inputs = torch.cat(recompute(model, flat, ("entropy", "log_top1")))
        weight = model.parts.embed.weight
        chunks.append([inputs.detach(), *torch.autograd.grad(inputs[:, -2:].sum(), [weight])])
    for ours, whole in zip(*chunks, strict=True):
        assert (ours - whole).abs().max() <= 1e-5 * whole.abs().max()
    counts = [len(one.write_N) for one in flat]
    assert num_rows == [*counts, *[1] * (2 * sum(counts))]  # once more for the gradient


def test_draws_do_not_depend_on_neighbours(folders: dict[str, Path]) -> None:
    model = streams.load(folders["qwen2"], boundary="token")
    alone, beside = rollouts(model, lanes=1), rollouts(model, lanes=7)
    assert actions(alone) == actions(beside) != actions(rollouts(model, seed=[4]))
    for one, same in zip(sum(alone, []), sum(beside, []), strict=True):
        assert (one.tokens, one.schedule) == (same.tokens, same.schedule)
        torch.testing.assert_close(one.log_prob_N, same.log_prob_N, atol=1e-5, rtol=0)
    assert all(len(set(map(tuple, group))) > 1 for group in actions(alone))  # or nothing to compare


def test_what_bounds_settle_is_no_decision(folders: dict[str, Path]) -> None:
    model = streams.load(folders["qwen2"], boundary="token")
    bounded = replace(POLICY, min_lag=1, max_lag=3)
    found = [each for group in rollouts(model, bounded) for each in group]
    assert sum(len(one.write_N) for one in found) > 9
    for one in found:
        lag_N = one.units_read_N - one.words_written_N
        assert ((lag_N >= 1) & (lag_N < 3)).all()
        assert (one.units_read_N < len(one.source.units)).all()
    fixed = replace(POLICY, min_lag=2, max_lag=2)
    assert not sum(len(one.write_N) for group in rollouts(model, fixed) for one in group)


def test_a_sampled_policy_draws_as_often_as_it_says() -> None:
    from tests.policy.test_learned import make_head, make_seen

    policy = SampledLearned.like(Learned(threshold=0.6), make_head([1.0, -1.0], [0, 0]), 0.5)
    many = make_seen(torch.tensor([[0.3, 0.1]]).repeat(4000, 1), [3] * 4000, [2] * 4000)
    share = float(policy.seeded([1]).writes(many).double().mean())
    odds = (0.2 + 0.5 * 1 - math.log(1.5)) / 0.5
    assert share == pytest.approx(1 / (1 + math.exp(-odds)), abs=0.02)
    assert replace(policy, temperature=1e-6).seeded([1]).writes(many).all()  # as `learned` would
    assert policy.spec == Learned(threshold=0.6).spec


def test_a_tuned_head_is_a_head(folders: dict[str, Path]) -> None:
    inputs = torch.randn(50, 34, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tuned = TunedHead(random_head(), inputs * 3 + 1)
    with torch.no_grad():
        tuned.change_F += 0.3
        tuned.bias += 0.2
    head = tuned.head()
    by_hand = inputs @ torch.cat([head.hidden_D, head.scalar_S]) + head.bias
    torch.testing.assert_close(tuned(inputs), by_hand, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_reinforced_is_refused(folders: dict[str, Path]) -> None:
    model = streams.load(folders["qwen2"])
    with pytest.raises(ValueError, match="takes texts"):
        make_sources(model, [Job(index=0, source="", media=("a.wav",))])
    with pytest.raises(ValueError, match="every source is too short"):
        make_sources(model, make_jobs(["eins"], None))
    trajectory = rollouts(model)[0][0]
    with pytest.raises(ValueError, match="layout 'reencoded'"):
        recompute(streams.load(folders["qwen2"], layout="reencoded"), [trajectory], ())
