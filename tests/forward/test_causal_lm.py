"""One fused step: what each lane feeds, what the probing ones get back."""

from pathlib import Path

import pytest
import torch
from tests.laws.streams import PROMPT, TOLERANCE, gap
from tests.models import save_tiny, tiny_model
from tests.tokenizers import build
from tests.two_groups import lane_input
from transformers import GenerationConfig

from proactivellm.backbone.prompt import Prompt, StreamSettings
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.graphs import StepOutput
from proactivellm.forward.lanes import LaneInput, Piece
from proactivellm.modality.loading import load
from proactivellm.output import detokenize


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StreamingCausalLM:
    folder = save_tiny("qwen3", tmp_path_factory.mktemp("qwen3"))
    settings = StreamSettings(layout="grouped", phi=5, prompt=PROMPT)
    return load(folder, settings=settings)


def step(model: StreamingCausalLM, *lanes: LaneInput) -> StepOutput:
    output = model.step(model.new_cache(1 + max(lane.lane for lane in lanes)), lanes)
    assert output is not None
    return output


def test_a_lane_counts_its_tokens() -> None:
    lane = lane_input(0, [(1, (7, 8)), (2, torch.zeros(3, 4))], (1, 2), probes=True)
    assert (lane.added, lane.size, lane.last_unit) == ({"source": 5, "target": 2}, 7, 2)
    assert lane.probe == 6 and LaneInput(lane=0).size == 0


@pytest.mark.parametrize("row", [2, -3])
def test_a_row_that_is_none_cannot_probe(row: int) -> None:
    with pytest.raises(ValueError, match=f"lane 4: row {row} of 2 cannot probe"):
        LaneInput(lane=4, pieces=[Piece("source", 1, [7, 8])], probe=row)


def test_a_group_that_the_layout_does_not_have_is_named(model: StreamingCausalLM) -> None:
    lane = LaneInput(lane=0, pieces=[Piece("frames", 1, [7])])
    message = "layout 'grouped' has no group 'frames', but source, target"
    with pytest.raises(ValueError, match=message):
        model.step(model.new_cache(), [lane])


@pytest.mark.parametrize(
    ("layout", "source", "target"),
    [("grouped", [4, 5, 6], [8, 9]), ("interleaved", [7, 8, 9], [15, 16])],
)
def test_what_enters_the_cache(layout: str, source: list[int], target: list[int]) -> None:
    """Four source and three target tokens before; units 2 and 3, two target tokens now."""
    settings = StreamSettings(layout=layout, phi=5)
    model = StreamingCausalLM(tiny_model("llama"), build("metaspace"), settings)
    cache = model.new_cache()
    cache.lengths[0] = 7
    lane = lane_input(0, [(2, [3, 4]), (3, [5])], [6, 7], before=(4, 3))
    assert model.step(cache, [lane]) is None, "nobody probes"
    group, position, unit, in_space = cache.kinds[:, 7:12].tolist()
    assert position == [*source, *target]
    assert unit == [2, 2, 3, 0, 0]
    assert group == [0, 0, 0, 1, 1] and not any(in_space)
    assert cache.lengths == [7], "what stays is for the caller to say"


def test_only_probing_lanes_come_back_in_the_order_of_the_step(model: StreamingCausalLM) -> None:
    inputs = [
        lane_input(2, [(1, [10, 11, 12])], [1], probes=True),
        lane_input(0, [(1, [13])]),
        lane_input(1, [(1, [14, 15])], [1, 16], probes=True),
    ]
    output = step(model, *inputs)
    assert output.logits_PV.shape == (2, len(model.tokenizer) + 11)
    for row, lane in enumerate((inputs[0], inputs[2])):
        assert gap(output.logits_PV[row : row + 1], step(model, lane).logits_PV) <= TOLERANCE
    assert output.weights_LPHK is None and output.unit_PK is None, "nobody asked for attention"
    seen = model.step(model.new_cache(3), inputs, attention=True)
    assert seen is not None and seen.unit_PK is not None
    assert seen.unit_PK.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]


def test_features_take_the_place_of_embeddings(model: StreamingCausalLM) -> None:
    ids = [20, 21, 22]
    features = model.model.get_input_embeddings()(torch.tensor(ids)).detach()
    as_ids = step(model, lane_input(0, [(1, ids)], [1], probes=True))
    mixed = [(1, [20]), (1, features[1:].double())]
    as_features = step(model, lane_input(0, mixed, [1], probes=True))
    assert gap(as_features.logits_PV, as_ids.logits_PV) <= TOLERANCE


def test_the_end_of_the_target_is_what_the_model_says_else_the_tokenizer() -> None:
    streaming = StreamingCausalLM(tiny_model("llama"), build("byte_level"))
    assert streaming.end_token_ids == {2}
    streaming.model.generation_config = GenerationConfig(eos_token_id=[2, 9])
    assert streaming.end_token_ids == {2, 9}
    streaming.model.generation_config.eos_token_id = 7
    assert streaming.end_token_ids == {7}
    streaming.model.generation_config.eos_token_id = None
    assert streaming.end_token_ids == {build("byte_level").eos_token_id}
    streaming.model.generation_config = None
    assert streaming.end_token_ids == {build("byte_level").eos_token_id}


def test_word_starts_are_looked_up_once(
    model: StreamingCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 150,000 tokens it takes seconds, and every session asks for them."""
    starts, points = model.word_starts, model.decision_points
    assert starts == detokenize.word_starts(model.tokenizer)
    assert points == detokenize.decision_points(model.tokenizer)
    monkeypatch.delattr(detokenize, "word_starts")
    assert model.word_starts is starts and model.decision_points is points


def test_a_model_is_made_ready_and_not_changed() -> None:
    plain = tiny_model("gemma3_text").train()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    streaming = StreamingCausalLM(plain, build("byte_level"))
    assert streaming.model is plain and not plain.training
    assert streaming.settings == StreamSettings() and streaming.folder is None
    assert all(torch.equal(before[name], value) for name, value in plain.state_dict().items())


def test_a_tokenizer_without_a_first_token_for_the_target_is_refused() -> None:
    tokenizer = build("byte_level").__class__(
        tokenizer_object=build("byte_level").backend_tokenizer
    )
    with pytest.raises(ValueError, match=r"set prompt\.target_head"):
        StreamingCausalLM(tiny_model("llama"), tokenizer)
    settings = StreamSettings(prompt=Prompt(target_head="a"))
    assert StreamingCausalLM(tiny_model("llama"), tokenizer, settings).prompt.target_head


def test_a_folder_is_remembered(tmp_path: Path) -> None:
    assert load(save_tiny("llama", tmp_path)).folder == tmp_path
