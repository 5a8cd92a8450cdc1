"""The learned policy: its arithmetic, its file, and that neighbours do not change a decision."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import Recorder
from tests.models import save_tiny
from torch import Tensor

from proactivellm.backbone.bundled import bundled_models
from proactivellm.backbone.hub import needed
from proactivellm.files.digest import digest_model
from proactivellm.modality.loading import load
from proactivellm.policy.evidence import Confidence, Entropy, Hidden, Seen
from proactivellm.policy.head import HEAD_FILE, Head, evidence_of, head_of
from proactivellm.policy.learned import Learned
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session

ABOUT = {"label": "acceptable, 0.3", "description": "dev.de", "num_sources": "9", "auc": "0.9"}


def make_head(hidden: Sequence[float], scalars: Sequence[float] = (), bias: float = 0.0) -> Head:
    names = ("entropy", "log_top1")[: len(scalars)]
    return Head(
        hidden_D=torch.tensor(hidden, dtype=torch.float64),
        scalar_S=torch.tensor(scalars, dtype=torch.float64),
        bias=bias,
        scalars=names,
        about=ABOUT,
    )


def make_seen(hidden: Tensor, units: Sequence[int], words: Sequence[int]) -> Seen:
    return Seen(
        units_read_B=torch.tensor(units),
        units_in_view_B=torch.tensor(units),
        words_written_B=torch.tensor(words),
        evidence={
            Hidden(): hidden,
            Entropy(): torch.tensor([0.5] * len(units)),
            Confidence(): torch.tensor([0.25] * len(units)),
        },
    )


class TestTheRule:
    HEAD = make_head([1.0, -2.0], [-0.5, 0.25], 0.125)
    SEEN = make_seen(torch.tensor([[0.5, 0.25], [3.0, 1.0]]), [4, 9], [2, 4])

    def test_is_what_a_hand_computes(self) -> None:
        logits = [0.5 - 0.5, 3.0 - 2.0]
        logits = [x - 0.5 * 0.5 + 0.25 * math.log(0.25) + 0.125 for x in logits]
        assert self.HEAD.logit(self.SEEN).tolist() == pytest.approx(logits, abs=1e-7)
        # The lag is 4 - 1.5 * 2 = 1 and 9 - 1.5 * 4 = 3.
        policy = Learned(threshold=0.5, lag_weight=0.4, stride=1.5, head=self.HEAD)
        odds = [logits[0] + 0.4 * 1, logits[1] + 0.4 * 3]
        wanted = [1 / (1 + math.exp(-x)) for x in odds]
        assert policy.statistic(self.SEEN).tolist() == pytest.approx(wanted, abs=1e-7)
        between = replace(policy, threshold=sum(wanted) / 2)
        assert between.writes(self.SEEN).tolist() == [False, True]
        exactly = replace(policy, threshold=float(policy.statistic(self.SEEN)[0]))
        assert exactly.writes(self.SEEN).tolist() == [True, True]

    def test_without_a_head_says_so(self) -> None:
        with pytest.raises(ValueError, match="it has no head"):
            Learned(threshold=0.5).writes(self.SEEN)

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("learned:1", "threshold of learned must be above 0 and below 1"),
            ("learned:0.5,lag_weight=-1", "lag_weight must be 0 or more"),
            ("learned:0.5,head=1", "unknown key of learned: 'head'"),
        ],
    )
    def test_options_out_of_range_are_refused(self, spec: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            parse_policy(spec)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture
def model(folder: Path) -> Recorder:
    return streams.load(folder, boundary="token")


def random_head(width: int) -> Head:
    """Weights that make as many WRITEs as READs."""
    weights = torch.randn(width, generator=torch.Generator().manual_seed(1))
    return make_head((weights / 4).tolist(), [0.3, -0.2], -0.5)


class TestInSessions:
    def test_neighbours_change_no_decision(self, model: Recorder) -> None:
        model.head = random_head(model.model.config.hidden_size)
        policy = parse_policy("learned:0.5,lag_weight=0.3")
        sources = [
            streams.as_units(streams.random_units(count, len(model.tokenizer), seed))
            for seed, count in enumerate((7, 9, 3, 8, 5))
        ]
        alone = [
            streams.feed(Session(model, policy, Sampling()), units, 1).state.delays
            for units in sources
        ]
        assert len({tuple(delays) for delays in alone}) > 2  # neither wait-k nor offline
        engine = Engine(model, policy, Limits(streams=len(sources)), Sampling())
        lanes = [engine.open() for _ in sources]
        # The same object for all lanes, which are asked together.
        assert len({id(engine.policies[lane]) for lane in lanes}) == 1
        for lane, units in zip(lanes, sources, strict=True):
            engine.push(lane, units)
        while engine.step() is not None:
            pass
        assert [engine.state(lane).delays for lane in lanes] == alone

    def test_a_model_without_a_head_is_told_what_to_do(self, folder: Path) -> None:
        own = load(folder)
        message = rf"the model has no {HEAD_FILE}; train one with `proactivellm calibrate"
        with pytest.raises(ValueError, match=message):
            Session(own, parse_policy("learned:0.5"))


class TestTheFile:
    def test_keeps_everything_in_single_precision(self, model: Recorder, tmp_path: Path) -> None:
        head = random_head(model.model.config.hidden_size)
        head.save(tmp_path)
        again = Head.load(tmp_path)
        assert torch.equal(again.hidden_D, head.hidden_D.float().double())
        assert torch.equal(again.scalar_S, head.scalar_S.float().double())
        assert (again.bias, again.scalars, again.layer) == (-0.5, ("entropy", "log_top1"), -1)
        assert again.about == ABOUT
        assert again.evidence == evidence_of(("entropy", "log_top1"))
        assert (tmp_path / HEAD_FILE).stat().st_size < 4000

    def test_of_another_width_is_refused_by_name(self, folder: Path, tmp_path: Path) -> None:
        place = shutil.copytree(folder, tmp_path / "model")
        before = digest_model(place)
        make_head([1.0] * 7).save(place)
        model = load(place)  # loads all the same, and is no other model
        assert digest_model(place) == before
        message = rf"{HEAD_FILE} is of another model: .* width 7, and those of the model have 32"
        with pytest.raises(ValueError, match=message):
            head_of(model)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_whose_weights_are_no_numbers_is_named(self, value: float, tmp_path: Path) -> None:
        make_head([1.0, value, 0.0]).save(tmp_path)
        with pytest.raises(ValueError, match=rf"{HEAD_FILE} is no head .*a weight is NaN or inf"):
            Head.load(tmp_path)

    def test_that_is_broken_is_named(self, tmp_path: Path) -> None:
        (tmp_path / HEAD_FILE).write_bytes(b"no tensors")
        with pytest.raises(ValueError, match=rf"{HEAD_FILE} is no head of version 1"):
            Head.load(tmp_path)

    def test_comes_from_the_hub_with_the_rest(self) -> None:
        assert HEAD_FILE in needed(["config.json", "model.safetensors", HEAD_FILE])


@pytest.mark.parametrize("name", ["tatoeba-de-en"])
def test_bundled_models_have_one(name: str) -> None:
    head_of(load(bundled_models()[name]))
