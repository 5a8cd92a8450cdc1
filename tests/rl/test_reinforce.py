"""The loop: it finds out when reading pays, takes up where it was stopped, and refuses nonsense."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.models import save_tiny

from proactivellm.evaluation.evaluate import make_jobs
from proactivellm.evaluation.provenance import digest_weights
from proactivellm.modality import loading
from proactivellm.output.log import Instance
from proactivellm.policy.head import Head
from proactivellm.policy.learned import Learned
from proactivellm.rl import reinforce
from proactivellm.rl.reinforce import PolicyPlan, PolicyReinforcement
from proactivellm.rl.reward import Rewards
from proactivellm.rl.run import reinforce as save

TEXTS = ["ein paar kurze Wörter", "noch ein Satz mit Wörtern"]
ZERO = Head(
    hidden_D=torch.zeros(32, dtype=torch.float64),
    scalar_S=torch.zeros(0, dtype=torch.float64),
    bias=0.0,
    scalars=(),
    about={},
)
PLAN = PolicyPlan(num_steps=5, num_sources=2, group=6, learning_rate=0.3, temperature=1.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("qwen2", tmp_path_factory.mktemp("tiny"))


def begin(tiny: Path, plan: PolicyPlan = PLAN, **bounds: int) -> PolicyReinforcement:
    model = streams.load(tiny, boundary="token")
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = 5
    model.head = ZERO
    policy = Learned(threshold=0.5, lag_weight=0, **bounds)  # type: ignore[arg-type]
    return PolicyReinforcement(model, policy, make_jobs(TEXTS, TEXTS), plan)


@pytest.mark.parametrize("needed", [False, True])
def test_it_waits_where_reading_pays_and_nowhere_else(
    tiny: Path, needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(groups: Sequence[Sequence[Instance]], *_: object) -> Rewards:
        lags = [[sum(i.token_delays) / 5 / len(i.token_delays) for i in group] for group in groups]
        latency_NG = torch.tensor(lags, dtype=torch.float64).clamp(max=1)
        # A text is the better the later it was written, or good whenever it was.
        quality_NG = latency_NG if needed else torch.ones_like(latency_NG)
        return Rewards(quality_NG, latency_NG, quality_NG >= quality_NG.median())

    monkeypatch.setattr(reinforce, "make_rewards", planted)
    run = begin(tiny)
    told = [run.advance() for _ in range(PLAN.num_steps)]
    assert all(each["gap"] < 1e-5 for each in told)
    first, last = told[0], told[-1]
    if needed:
        assert last["writes"] < first["writes"] - 0.1 and last["latency"] > first["latency"]
    else:
        assert last["writes"] > first["writes"] + 0.1 and last["latency"] < first["latency"]


def test_it_goes_on_where_it_stopped(tiny: Path) -> None:
    whole = begin(tiny)
    told = [whole.advance() for _ in range(2)]
    half = begin(tiny)
    assert half.advance() == told[0]
    later = begin(tiny)
    later.load_state_dict(half.state_dict())
    assert later.advance() == told[1]
    assert later.head.digest == whole.head.digest != ZERO.digest


def test_nothing_is_learnt_where_nothing_can_be_decided(tiny: Path) -> None:
    run = begin(tiny, min_lag=1, max_lag=1)
    with pytest.raises(ValueError, match="nothing is left to decide: the bounds of 'learned:"):
        run.advance()
    with pytest.raises(ValueError, match="rewards need references"):
        PolicyReinforcement(run.model, run.policy, make_jobs(TEXTS, None))


def test_adapters_learn_with_the_head_and_go_on(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = replace(PLAN, lora_rank=2, lora_learning_rate=0.01, passes=2, group=3)
    whole = begin(tiny, plan)
    told = [whole.advance() for _ in range(2)]
    assert max(each["gap"] for each in told) < 1e-5  # rollouts run on the adapted model
    assert whole.adapted is not None
    moved = [each for each in whole.adapted.parameters() if each.requires_grad and each.any()]
    assert len(moved) > 14  # B of each pair is 0 before the first update
    half = begin(tiny, plan)
    half.advance()
    later = begin(tiny, plan)
    later.load_state_dict(half.state_dict())
    assert later.advance() == told[1]

    saved = begin(tiny, replace(plan, num_steps=1))
    saved.model.folder = tiny
    capfd.readouterr()
    (line,) = save(saved, tmp_path / "out")
    assert capfd.readouterr().err == ""  # no bar of shards, of which there is one
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "with it adapters of rank 2, merged into the weights. It took 1 step" in card
    assert card.endswith(f"It comes from `{tiny.name}`.\n")  # which has no card
    assert line == told[0]
    stored, before = loading.load(str(tmp_path / "out")), loading.load(str(tiny))
    assert digest_weights(stored.model) != digest_weights(before.model)
    names = [name for name, _ in stored.model.named_parameters()]
    assert names == [name for name, _ in before.model.named_parameters()]  # merged
