"""The control token: its probability as evidence, and that nothing ever chooses the token."""

from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.models import save_tiny

from proactivellm.backbone.prompt import StreamSettings, load_settings
from proactivellm.core.layout import TARGET
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import LaneInput, Piece
from proactivellm.modality.loading import load
from proactivellm.policy.evidence import Control, Rows, Seen
from proactivellm.policy.spec import parse_policy
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session

NUM_UNITS = 8
POLICIES = ["offline", "wait-k:1", "control:0.001,max_lag=4", "local-agreement:2,max_lag=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("qwen3", tmp_path_factory.mktemp("qwen3"))


def make(folder: Path, read_token: str | None = None) -> StreamingCausalLM:
    model = load(folder, settings=StreamSettings(read_token=read_token))
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = 24
    model.model.generation_config.eos_token_id = []
    return model


def write(model: StreamingCausalLM, spec: str, sampling: Sampling) -> list[int]:
    units = streams.as_units(streams.random_units(NUM_UNITS, len(model.tokenizer), 1))
    session = Session(model, parse_policy(spec), sampling=sampling)
    session.push(units)
    state = session.state
    assert state.error is None
    return state.target[state.num_head :]


def seen_of(probability: list[float]) -> Seen:
    counters = torch.ones(len(probability), dtype=torch.long)
    return Seen(
        units_read_B=counters,
        units_in_view_B=counters,
        words_written_B=counters,
        evidence={Control(): torch.tensor(probability)},
    )


def test_reads_while_the_token_is_more_probable_than_the_threshold() -> None:
    policy = parse_policy("control:0.5,min_lag=2")
    assert policy.spec == "control:threshold=0.5,min_lag=2"
    assert policy.writes(seen_of([0.25, 0.5, 0.75])).tolist() == [True, True, False]


@pytest.mark.parametrize("spec", ["control:0", "control:1", "control:nan"])
def test_a_threshold_is_a_probability(spec: str) -> None:
    with pytest.raises(ValueError, match="threshold"):
        parse_policy(spec)


@pytest.mark.parametrize("spec", POLICIES)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=3.0, seed=5)])
def test_the_token_is_never_written(folder: Path, spec: str, sampling: Sampling) -> None:
    plain = make(folder)
    without = write(plain, spec.replace("control:0.001", "confidence:0.5"), sampling)
    named = [token for token in without if token < len(plain.tokenizer)]
    favourite = max(set(named), key=named.count)
    # A token that the model likes: without the ban it would be written.
    token = plain.tokenizer.convert_ids_to_tokens(favourite)
    written = write(make(folder, token), spec, sampling)
    assert len(written) > 5 and favourite not in written


@torch.inference_mode()
def test_the_evidence_is_its_share_of_what_could_come_next(folder: Path) -> None:
    plain = make(folder)
    token_id = 50
    model = make(folder, plain.tokenizer.convert_ids_to_tokens(token_id))
    assert model.read_id == token_id
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    banned = model.project(hidden)
    assert banned[:, token_id].isneginf().all() and banned.isneginf().sum() == 3

    piece = Piece(TARGET, 0, [1, 30, 31])
    for each in (None, "graph"):  # steps as they come, and those of fixed shapes
        model.accelerate(each)
        output = model.step(model.new_cache(), [LaneInput(lane=0, pieces=[piece], probe=-1)])
        assert output is not None and output.logits_PV[:, token_id].isneginf().all()
        wanted = plain.parts.project(output.hidden_PD).float().softmax(-1)[:, token_id]
        shown = Control().of(Rows(output, torch.zeros(1, dtype=torch.long)))
        torch.testing.assert_close(shown, wanted, rtol=1e-4, atol=1e-9)


def test_settings_keep_the_token(tmp_path: Path) -> None:
    StreamSettings(read_token="<READ>").save(tmp_path)
    assert load_settings(tmp_path) == StreamSettings(read_token="<READ>")
    # Notes of what runs depend on, of models without one, stay as they are.
    assert "read_token" not in StreamSettings().model_dump(mode="json")


def test_a_model_without_the_token_refuses_the_policy(folder: Path) -> None:
    with pytest.raises(ValueError, match="no control token: train it .* `control_weight`"):
        Session(make(folder), parse_policy("control:0.5"))


def test_a_token_that_the_model_lacks_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="names the read_token '<NONE>', which the tokenizer"):
        make(folder, "<NONE>")


def test_rows_of_a_step_keep_the_logit_of_the_token(folder: Path) -> None:
    model = make(folder, make(folder).tokenizer.convert_ids_to_tokens(50))
    pieces = [Piece(TARGET, 0, [1, 30, 31])]
    output = model.step(model.new_cache(), [LaneInput(lane=0, pieces=pieces, probe=-3, rows=3)])
    assert output is not None and output.read_P is not None
    assert output.at([2, 0]).read_P.tolist() == output.read_P[[2, 0]].tolist()
