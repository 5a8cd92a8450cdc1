"""Precision: any dtype and 8-bit weights keep the law, and what cannot be had is told."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import OBEYING, save_random
from tests.laws import streams
from tests.laws.streams import END, PROMPT, TOLERANCE, Recorder, gap
from tests.models import VOCAB_SIZE, save_tiny
from torch import Tensor
from torch._inductor import config as inductor
from torchao.quantization import Int8Tensor
from transformers import PreTrainedModel

from proactivellm.backbone import precision
from proactivellm.backbone.prompt import StreamSettings
from proactivellm.modality.loading import load

K = 2
HALF_ERROR = 0.05  # of the logit scale
INT8_ERROR = 0.02  # of the logit scale of the bundled model, which is trained; measured: 0.007


def linear_weights(model: PreTrainedModel) -> list[Tensor]:
    """Weights of the linear layers of the decoder."""
    decoder = model.get_decoder()
    return [m.weight for m in decoder.modules() if isinstance(m, torch.nn.Linear)]


def num_bytes(model: PreTrainedModel) -> int:
    """What the parameters take, each once."""
    total = 0
    for weight in model.parameters():
        whole = not isinstance(weight, Int8Tensor)
        for part in [weight] if whole else [weight.qdata, weight.scale, weight.zero_point]:
            total += part.nbytes
    return total


def logits(model: PreTrainedModel) -> Tensor:
    """[S, V] of a fixed text, with an attention of transformers."""
    model.set_attn_implementation("sdpa")
    with torch.inference_mode():
        return model(input_ids=torch.arange(4, 24)[None]).logits[0].float()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_half_precision_passes_the_check_of_the_law(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    folder = save_tiny(family, tmp_path)
    half = load(folder, dtype=dtype).model
    assert half.dtype == dtype == next(half.parameters()).dtype
    whole = load(folder).model
    assert 0 < gap(logits(half), logits(whole)) < HALF_ERROR


@pytest.mark.parametrize(
    ("device", "quantization", "dtype"),
    [
        ("cpu", "none", torch.float32),
        ("cpu", "int8", torch.float32),
        ("cuda:1", "none", None),
        ("cuda:1", "int8", torch.bfloat16),
    ],
)
def test_the_dtype_that_is_taken_where_none_is_asked_for(
    device: str, quantization: str, dtype: torch.dtype | None
) -> None:
    assert precision.choose_dtype(None, device, quantization) == dtype
    for asked in (torch.float32, torch.bfloat16):
        assert precision.choose_dtype(asked, device, quantization) == asked


@pytest.mark.parametrize(
    ("can", "computes"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, False),  # it would be emulated
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({}, False),
    ],
)
def test_a_cpu_computes_in_bf16_where_it_has_instructions_for_it(
    can: dict[str, bool], computes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    assert precision.computes_in_bf16("cpu") == computes


def test_names_of_dtypes() -> None:
    assert precision.parse_dtype("auto") is None
    assert precision.parse_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(ValueError, match="'fp16': choose auto, float32, bfloat16 or float16"):
        precision.parse_dtype("fp16")


class TestInt8:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("family", ["qwen3", "phi3", "gemma3_text", "llama"])
    def test_linear_layers_have_8_bits_and_embeddings_are_as_before(
        self, family: str, dtype: torch.dtype, tmp_path: Path
    ) -> None:
        folder = save_tiny(family, tmp_path)
        before = load(folder, dtype=dtype).model
        model = load(folder, dtype=dtype, quantization="int8").model
        assert model.dtype == dtype
        weights = linear_weights(model)
        for weight, exact in zip(weights, linear_weights(before), strict=True):
            assert type(weight.data) is Int8Tensor and weight.qdata.dtype == torch.int8
            steps = (weight.dequantize(torch.float32) - exact.float()).abs() / weight.scale
            assert steps.max() < 0.501

        embedding, output = (
            model.get_input_embeddings().weight,
            model.get_output_embeddings().weight,
        )
        assert torch.equal(embedding, before.get_input_embeddings().weight)
        assert torch.equal(output, before.get_output_embeddings().weight)
        tied = model.config.tie_word_embeddings
        assert tied == (family in ("qwen3", "gemma3_text")) and (output is embedding) == tied

        numbers = sum(weight.numel() for weight in weights)
        rows = sum(len(weight) for weight in weights)
        saved = numbers * (dtype.itemsize - 1) - rows * (4 + 1)  # a scale and a zero point each
        assert num_bytes(before) - num_bytes(model) == saved

    def test_a_trained_model_hardly_changes(self) -> None:
        before = load("tatoeba-de-en").model
        model = load("tatoeba-de-en", quantization="int8").model
        assert num_bytes(model) < 0.5 * num_bytes(before)
        assert 0 < gap(logits(model), logits(before)) < INT8_ERROR

    def test_the_law_holds_as_it_does_in_fp32(self, tmp_path: Path) -> None:
        settings = StreamSettings(prompt=PROMPT, boundary="token")
        folder = save_tiny("qwen3", tmp_path)
        loaded = load(folder, settings=settings, quantization="int8")
        model = Recorder(loaded.model, loaded.tokenizer, settings)
        source = streams.random_units(6, VOCAB_SIZE, seed=1)
        target = [*streams.random_ids(6, VOCAB_SIZE, seed=2), END]
        assert streams.law_gap(model, source, target, K) <= TOLERANCE

    def test_a_saved_model_is_loaded_as_it_is(self, tmp_path: Path) -> None:
        folder = save_tiny("qwen3", tmp_path)
        model = load(folder, quantization="int8").model
        model.save_pretrained(folder)
        again = load(folder).model
        assert type(linear_weights(again)[0].data) is Int8Tensor
        assert torch.equal(logits(again), logits(model))

    def test_settings_of_the_process_stay(self, tmp_path: Path) -> None:
        """Those for torch.compile, which torchao would change."""
        folder = save_tiny("llama", tmp_path)
        with inductor.patch(coordinate_descent_tuning=False):
            load(folder, quantization="int8")
            assert not inductor.coordinate_descent_tuning

    @pytest.mark.parametrize("name", ["gpt2", "gpt_oss"])
    def test_weights_that_are_in_no_linear_layer(self, name: str, tmp_path: Path) -> None:
        folder = save_random(name, OBEYING[name], tmp_path)
        with pytest.raises(ValueError, match=f"'{name}' cannot be quantised: .* hold [0-9]+% of"):
            load(folder, quantization="int8")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"quantization": "int4"}, "unknown quantization 'int4': choose none, int8 or nf4"),
        ({"quantization": "int8", "dtype": torch.float16}, "overflow in float16: choose bfloat16"),
    ],
)
def test_what_cannot_be_had_is_told_first(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load("no-such-model", **asked)


class TestWithoutTorchao:
    REMEDY = r"pip install 'proactivellm\[quant\]'"

    def test_the_error_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(precision, "is_torchao_available", lambda least: False)
        with pytest.raises(ValueError, match=f"need torchao >= 0.18, .*{self.REMEDY}"):
            load("no-such-model", quantization="int8")

    def test_4_bits_need_another_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(precision, "is_bitsandbytes_available", lambda: False)
        with pytest.raises(
            ValueError, match=r"bitsandbytes, .*pip install 'proactivellm\[qlora\]'"
        ):
            load("no-such-model", quantization="nf4")

    def test_weights_that_are_stored_so(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        folder = save_tiny("llama", tmp_path)
        model = load(folder, quantization="int8").model
        model.save_pretrained(folder)
        monkeypatch.setitem(sys.modules, "torchao.core.config", None)
        with pytest.raises(ValueError, match=f"cannot load a causal LM .*torchao.*{self.REMEDY}"):
            load(folder)
