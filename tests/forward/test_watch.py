"""What the class of a model does, whatever its configuration names."""

import pytest
import torch
from tests.families import OBEYING, random_model
from tests.models import FAMILIES, SLIDING, WINDOW, tiny_config, tiny_model
from tests.tokenizers import build
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.law import LONGEST_TEXT, check_law
from proactivellm.forward.watch import watch_attention


def attention_of(family: str, **changes: object) -> dict[str, int | None]:
    config = tiny_config(family)
    for key, value in changes.items():
        setattr(config, key, value)
    model = AutoModelForCausalLM.from_config(config)
    return watch_attention(model).windows


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_are_those_of_the_class(family: str) -> None:
    attention = watch_attention(tiny_model(family))
    expected: dict[str, dict[str, int | None]] = {
        "mistral": {"all": WINDOW},
        "phi3": {"all": WINDOW},
        "gemma3_text": {"full_attention": None, "sliding_attention": WINDOW},
    }
    assert attention.windows == expected.get(family, {"all": None})
    assert (WINDOW in attention.windows.values()) == (family in SLIDING)
    assert set(attention.layer_types) == set(attention.windows)
    assert attention.hands_down


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_window_left_over_in_a_configuration_is_none(family: str) -> None:
    assert attention_of(family, sliding_window=4) == {"all": None}


@pytest.mark.parametrize("window", [4096, 131072])
def test_windows_of_thousands_are_known_without_a_text_of_their_length(window: int) -> None:
    assert attention_of("mistral", sliding_window=window) == {"all": window}


def test_layers_of_one_type_alone_share_one_mask() -> None:
    kinds = ["sliding_attention"] * 3
    assert attention_of("gemma3_text", layer_types=kinds) == {"all": WINDOW}


@pytest.mark.parametrize("name", ["nemotron", "falcon"])
def test_families_that_keep_arguments_from_their_attention(name: str) -> None:
    assert not watch_attention(random_model(name, OBEYING[name])).hands_down


def test_layers_of_one_type_that_differ_are_refused() -> None:
    model = tiny_model("gemma3_text")

    def unmasked(module: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, {**kwargs, "attention_mask": None}

    model.model.layers[0].register_forward_pre_hook(unmasked, with_kwargs=True)
    with pytest.raises(ValueError, match=r"one type have several windows \(\[None, None, 6\]\)"):
        watch_attention(model)


def test_nothing_is_left_behind() -> None:
    """Neither hooks nor another attention, and dropout takes nothing from the random numbers."""
    config = AutoConfig.for_model("qwen2", **OBEYING["cohere"], attention_dropout=0.5)
    model = AutoModelForCausalLM.from_config(config).train()
    state = torch.random.get_rng_state()
    watch_attention(model)
    assert model.training and model.config._attn_implementation == "sdpa"
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


class TestTheLawBeyondTheWindow:
    """The text tried at loading is longer than a window, also than one that is only named."""

    @staticmethod
    def streaming(model: PreTrainedModel) -> StreamingCausalLM:
        return StreamingCausalLM(model, build("byte_level"))

    @pytest.mark.parametrize("window", [20, LONGEST_TEXT - 10])
    def test_a_window_that_is_missed(self, window: int) -> None:
        model = random_model("mistral", {**OBEYING["cohere"], "sliding_window": window})
        streaming = self.streaming(model)
        check_law(streaming)
        streaming.windows = {"all": None}
        with pytest.raises(ValueError, match=r"other windows than those found \(all: none\)"):
            check_law(streaming)

    def test_a_window_that_the_class_has_not(self) -> None:
        streaming = self.streaming(random_model("llama", {**OBEYING["llama"]}))
        check_law(streaming)
        streaming.windows = {"all": 4}
        with pytest.raises(ValueError, match=r"other windows than those found \(all: 4\)"):
            check_law(streaming)
