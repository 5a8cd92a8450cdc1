"""One fused step: what each lane feeds, what the probing ones get back."""

from pathlib import Path

import pytest
import torch
from tests.laws.streams import PROMPT, TOLERANCE, gap
from tests.models import save_tiny, tiny_model
from tests.tokenizers import build
from transformers import GenerationConfig

from proactivellm.modality.loading import load
from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.model.lanes import LaneInput
from proactivellm.model.prompt import Prompt, StreamSettings
from proactivellm.model.static import StepOutput
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
    lane = LaneInput(lane=0, source=[(1, (7, 8)), (2, torch.zeros(3, 4))], target=(1, 2))
    assert (lane.num_new_source, lane.num_new) == (5, 7)
    assert LaneInput(lane=0).num_new == 0


@pytest.mark.parametrize(
    ("layout", "source", "target"),
    [("grouped", [4, 5, 6], [8, 9]), ("interleaved", [7, 8, 9], [15, 16])],
)
def test_what_enters_the_cache(layout: str, source: list[int], target: list[int]) -> None:
    """Four source and three target tokens before; units 2 and 3, two target tokens now."""
    settings = StreamSettings(layout=layout, phi=5)  # type: ignore[arg-type]
    model = StreamingCausalLM(tiny_model("llama"), build("metaspace"), settings)
    cache = model.new_cache()
    cache.lengths[0] = 7
    lane = LaneInput(
        lane=0, source=[(2, [3, 4]), (3, [5])], target=[6, 7], num_source=4, num_target=3
    )
    assert model.step(cache, [lane]) is None, "nobody probes"
    group, position, unit = cache.kinds[:, 7:12].tolist()
    assert position == [*source, *target]
    assert unit == [2, 2, 3, 0, 0]
    assert group == [0, 0, 0, 1, 1]
    assert cache.lengths == [7], "what stays is for the caller to say"


def test_only_probing_lanes_come_back_in_the_order_of_the_step(model: StreamingCausalLM) -> None:
    inputs = [
        LaneInput(lane=2, source=[(1, [10, 11, 12])], target=[1], probes=True),
        LaneInput(lane=0, source=[(1, [13])]),
        LaneInput(lane=1, source=[(1, [14, 15])], target=[1, 16], probes=True),
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
    as_ids = step(model, LaneInput(lane=0, source=[(1, ids)], target=[1], probes=True))
    mixed = [(1, [20]), (1, features[1:].double())]
    as_features = step(model, LaneInput(lane=0, source=mixed, target=[1], probes=True))
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
