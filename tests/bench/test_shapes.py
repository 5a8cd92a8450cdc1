"""Shapes are those of the published models, and models with drawn weights stream."""

import json
from pathlib import Path

import pytest
import torch
from tests.models import save_tiny, tiny_config
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from proactivellm.bench.measure import weight_bytes
from proactivellm.bench.shapes import PREFIX, SHAPES, find_shape, random_model, word_tokenizer
from proactivellm.core.unit import Unit
from proactivellm.policy.fixed import WaitK
from proactivellm.session.session import Session

# As published, in billions; that of 6x256 by hand: 2 * 8000 * 256 + 6 * 951104 + 256.
PARAMETERS = {
    **{"qwen3-0.6b": 0.596, "qwen2.5-3b": 3.086, "qwen3-8b": 8.191, "qwen2.5-vl-3b": 3.755},
    **{"6x256": 0.0098, "4x128-vl": 0.00457},
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_the_parameters_of_the_models_they_are_of(name: str) -> None:
    config = find_shape(PREFIX + name)
    with torch.device("meta"):
        kind = AutoModelForCausalLM if "vl" not in name else AutoModelForImageTextToText
        model = kind.from_config(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e9 == pytest.approx(PARAMETERS[name], rel=0.002)


def test_names_that_are_none() -> None:
    with pytest.raises(ValueError, match="did you mean 'qwen3-8b'"):
        find_shape("shape:qwen3-8")
    assert find_shape("tatoeba-de-en") is None


def test_a_configuration_without_weights_is_a_shape(tmp_path: Path) -> None:
    folder = save_tiny("qwen3", tmp_path / "model")
    assert find_shape(str(folder)) is None  # it has weights
    named = find_shape(str(folder / "config.json"))
    assert named is not None and named.hidden_size == 32
    (folder / "model.safetensors").unlink()
    assert find_shape(str(folder)) is not None
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is no model configuration"):
        find_shape(str(folder))


def test_weights_are_drawn_by_the_seed_and_leave_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, again = (random_model(tiny_config("llama"), seed=1) for _ in range(2))
    other = random_model(tiny_config("llama"), seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [m.model.get_input_embeddings().weight for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_it_streams_tokens_as_words() -> None:
    model = random_model(tiny_config("llama"), dtype=torch.bfloat16)
    assert model.model.dtype == torch.bfloat16 and not model.end_token_ids
    session = Session(model, WaitK(k=2))
    writes = [w for token in (5, 6, 7) for w in session.push(Unit(token_ids=(token,)))]
    assert [write.units_read for write in writes] == [2, 3]
    written = 2 + len([write for write in session.close() if write.token_id is not None])
    assert session.state.truncated  # it never ends by itself
    words = session.text.split()
    assert written / 2 < len(words) <= written  # the marks of the prompt are not shown
    assert all(word.startswith("w") for word in words)


def test_eight_bits_are_for_linear_layers_but_the_last() -> None:
    plain, small = (random_model(tiny_config("llama"), quantization=q) for q in ("none", "int8"))
    output = small.model.get_output_embeddings().weight
    assert torch.equal(output, plain.model.get_output_embeddings().weight)
    linear = sum(m.weight.numel() for m in plain.model.model.modules() if hasattr(m, "in_features"))
    saved = weight_bytes(plain)[0] - weight_bytes(small)[0]
    assert 2.5 * linear < saved < 3 * linear  # 1 byte for 4, and a scale per row


def test_no_such_device() -> None:
    with pytest.raises(ValueError, match="cannot use --device nowhere"):
        random_model(tiny_config("qwen3"), device="nowhere")


def test_every_word_is_a_token() -> None:
    tokenizer = word_tokenizer(20)
    assert len(tokenizer) == 20 and tokenizer.eos_token_id is None
    assert tokenizer.encode("<source>w0 w16", add_special_tokens=False) == [0, 3, 19]
    assert tokenizer.decode([3, 19]) == "w0 w16"


def test_a_configuration_runs_no_code(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is no model configuration: it has code of its own"):
        find_shape(str(tmp_path))
    assert not mark.exists()
