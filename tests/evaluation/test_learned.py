"""Training the head of `learned`: what it sees is what a stream sees, and the same again."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tests.laws import streams
from tests.models import save_tiny
from torch import Tensor

from proactivellm.core.layout import TARGET
from proactivellm.evaluation.evaluate import make_jobs
from proactivellm.evaluation.learned import HeadPlan, ensure_head, examples, train_head
from proactivellm.evaluation.logistic import area_under_curve, fit
from proactivellm.evaluation.own_writes import OwnWrites, own_writes
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.policy.base import Policy
from proactivellm.policy.evidence import Seen
from proactivellm.policy.fixed import Fixed
from proactivellm.policy.head import SCALARS, Head, evidence_of, inputs_of
from proactivellm.policy.reason import Reason
from proactivellm.session.engine import Engine
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, source_turns

ASSETS = Path(__file__).parents[2] / "src/proactivellm/assets"
GERMAN = (ASSETS / "tatoeba-sample/test.de").read_text(encoding="utf-8").splitlines()
SOURCES = {
    "tatoeba-de-en": make_jobs([" ".join(GERMAN[i : i + 2]) for i in (2, 4, 6)], None),
    "lookup-qa": make_jobs(
        ["Where is the book? Tom has the key. The book is in the garden. Mary is here."], None
    ),
    "speech-en": [
        Job(index=0, source="", task="asr", media=(str(ASSETS / "speech-sample/digits-0.flac"),))
    ],
}


@dataclass(frozen=True, kw_only=True)
class Noted(Policy):
    """Follows a trace, and notes whatever it is shown."""

    name: ClassVar[str] = "noted"
    evidence = evidence_of(tuple(SCALARS))
    path: Fixed
    rows: list[Tensor] = field(default_factory=list)

    def required_units(self, words_written: int) -> int | None:
        return 1

    def settle(self, units_read: int, words_written: int) -> Reason | None:
        return None

    def decide(self, seen: Seen) -> Tensor:
        reason = self.path.settle(int(seen.units_read_B), int(seen.words_written_B))
        self.rows.append(torch.cat(inputs_of(seen, tuple(SCALARS)), dim=-1))
        return torch.tensor([int(reason)])


def streamed(model: StreamingCausalLM, job: Job, one: OwnWrites) -> Tensor:
    """The inputs of a head [N, F], wherever a session asks along the first schedule of `one`."""
    (units,) = source_turns(model, job)
    begins = [t for t in range(len(one.words) - 1) if one.words[t + 1] > one.words[t]]
    policy = Noted(path=Fixed(trace=tuple(one.schedules[0][t] for t in begins)))
    engine = Engine(model, policy, sampling=Sampling())
    lane = engine.open()
    engine.push(lane, units)
    while engine.step() is not None:
        pass
    return torch.cat(policy.rows)


@pytest.mark.parametrize("name", SOURCES)
def test_inputs_of_training_are_those_of_a_stream(name: str) -> None:
    model, plan, jobs = load(name), HeadPlan(), SOURCES[name]
    written = own_writes(model, jobs, num_views=2, num_lanes=2, seed=3)
    assert len(written) == len(jobs)
    num_compared = 0
    for one, job in zip(written, jobs, strict=True):
        first_only = replace(one, schedules=one.schedules[:1])
        (packed,) = examples(model, [first_only], plan)
        # A session asks more often: at each number of units read until the next word is due.
        gap_NM = (packed.inputs_NF[:, None] - streamed(model, job, one)[None]).abs().amax(-1)
        assert (gap_NM.amin(-1) < 1e-4).all()
        assert len(gap_NM.argmin(-1).unique()) == len(gap_NM)
        num_compared += len(gap_NM)
    assert num_compared


def test_a_label_is_what_the_full_view_makes_of_the_token() -> None:
    model = load("tatoeba-de-en")
    jobs = SOURCES["tatoeba-de-en"]
    written = own_writes(model, jobs, num_views=3, num_lanes=2, seed=0)
    # What was written after the whole source is what the full view wants most.
    full = [len(one.sample.read["source"]) - 1 for one in written]
    late = [
        replace(one, schedules=[[max(1, units - 1)] * len(one.words)])
        for one, units in zip(written, full, strict=True)
    ]
    labels = {
        label: torch.cat([each.wanted_N for each in examples(model, late, HeadPlan(label=label))])
        for label in ("acceptable", "agree")
    }
    assert labels["agree"].sum() <= labels["acceptable"].sum()
    assert not (labels["agree"] & ~labels["acceptable"]).any()
    early = [replace(one, schedules=[[1] * len(one.words)]) for one in written]
    blind = torch.cat([each.wanted_N for each in examples(model, early, HeadPlan())])
    assert blind.double().mean() < labels["acceptable"].double().mean()


def test_training_again_gives_the_same_bits_whatever_the_lanes(tmp_path: Path) -> None:
    model, jobs = load("tatoeba-de-en"), make_jobs(GERMAN[:10], None)
    plan = HeadPlan(num_views=2)
    heads = [train_head(model, jobs, plan, num_lanes=lanes) for lanes in (8, 3)]
    for head in heads:
        assert torch.equal(head.hidden_D, heads[0].hidden_D)
        assert torch.equal(head.scalar_S, heads[0].scalar_S) and head.bias == heads[0].bias
    assert heads[0].about == {
        "label": "acceptable, 0.3",
        "description": "dev",
        "num_sources": "10",
        "auc": heads[0].about["auc"],
    }
    other = train_head(model, jobs, replace(plan, seed=1))
    assert not torch.equal(other.hidden_D, heads[0].hidden_D)
    assert float(heads[0].about["auc"]) > 0.6


def test_a_head_is_trained_where_one_is_needed_and_missing(tmp_path: Path) -> None:
    model, jobs = load("tatoeba-de-en"), make_jobs(GERMAN[:12], None)
    model.folder = tmp_path
    assert ensure_head(model, ["entropy"], jobs, tmp_path) is None and model.head is None
    first = ensure_head(model, ["entropy", "learned:lag_weight=0.3"], jobs, tmp_path)
    assert first is not None and model.head is first
    stored = Head.load(tmp_path)
    assert torch.equal(stored.hidden_D, first.hidden_D) and stored.bias == first.bias
    assert ensure_head(model, ["learned"], jobs, tmp_path) is None
    assert ensure_head(model, ["learned"], jobs[:10], tmp_path, anew=True) is not None
    with pytest.raises(ValueError, match="wait-k has no threshold"):
        ensure_head(model, ["wait-k"], jobs, tmp_path)


def test_a_layout_without_packed_views_is_refused(tmp_path: Path) -> None:
    model = streams.load(save_tiny("qwen2", tmp_path / "qwen2"), layout="reencoded")
    with pytest.raises(ValueError, match="layout 'reencoded'"):
        train_head(model, make_jobs(["a b c"], None))


class TestLogisticRegression:
    def test_finds_the_plane_and_undoes_the_scaling(self) -> None:
        drawn = torch.Generator().manual_seed(0)
        inputs = torch.randn(600, 3, generator=drawn, dtype=torch.float64)
        inputs = inputs * torch.tensor([1.0, 20.0, 0.1]) + torch.tensor([5.0, -3.0, 0.0])
        logit = 2 * (inputs[:, 0] - 5) - 0.1 * (inputs[:, 1] + 3)
        wanted = logit > torch.randn(600, generator=drawn, dtype=torch.float64) / 4
        found = fit(inputs, wanted, torch.arange(600) % 12)
        score = inputs @ found.weight_F + found.bias
        assert found.auc > 0.97 and ((score > 0) == wanted).double().mean() > 0.93
        ratio = float(found.weight_F[0] / found.weight_F[1])
        assert ratio == pytest.approx(-20, rel=0.15)

    def test_wants_decisions_of_both_kinds(self) -> None:
        with pytest.raises(ValueError, match="too few decisions of both kinds"):
            fit(torch.ones(8, 2).double(), torch.ones(8).bool(), torch.arange(8))

    def test_ties_count_half(self) -> None:
        score = torch.tensor([0.0, 1.0, 1.0, 2.0])
        wanted = torch.tensor([False, False, True, True])
        assert area_under_curve(score, wanted) == (1 + 0.5 + 1 + 1) / 4
        assert area_under_curve(score, torch.ones(4).bool()) == 0.5


def test_the_full_view_of_a_pack_is_the_offline_model() -> None:
    from proactivellm.core.packing import IGNORE, pack
    from proactivellm.forward.packed import packed_hidden

    model = load("tatoeba-de-en")
    (one,) = own_writes(model, SOURCES["tatoeba-de-en"][:1], 1, 1, 0)
    full = [one.sample.num_units] * len(one.words)
    alone = pack(one.sample, [{TARGET: full}], model.layout)
    beside = pack(one.sample, [{TARGET: full}, {TARGET: one.schedules[0]}], model.layout)
    longer = pack(one.sample, [{TARGET: full}] * 3, model.layout)  # pads the others
    states = []
    for batch in ([alone], [beside, longer]):
        hidden_SD = packed_hidden(model, batch)[0]
        view, label = torch.tensor(batch[0].view), torch.tensor(batch[0].label)
        states.append(hidden_SD[((view == 0) & (label != IGNORE)).nonzero()[:, 0]])
    torch.testing.assert_close(states[0], states[1], atol=1e-4, rtol=1e-4)
    assert model.parts.project(states[0]).shape[0] == len(one.words)
