"""Loading: what obeys the law is taken as it is, what cannot is refused with the reason."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.families import LONGROPE, OBEYING, REFUSED, VOCAB_SIZE, random_model, save_random
from tests.laws import streams
from tests.laws.streams import END, PROMPT, TOLERANCE, gap
from tests.models import save_tiny
from tests.tokenizers import build
from transformers import T5Config, T5ForConditionalGeneration

from proactivellm.backbone import pretrained
from proactivellm.backbone.decoder import CACHE_ARGUMENTS
from proactivellm.backbone.families import check_family
from proactivellm.backbone.prompt import Prompt, StreamSettings
from proactivellm.core import schedule
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.law import check_law
from proactivellm.modality.loading import load
from proactivellm.policy.fixed import Fixed, WaitK
from proactivellm.session.session import Session

K = 3


@pytest.mark.parametrize("layout", ["grouped", "interleaved"])
@pytest.mark.parametrize("name", OBEYING)
def test_families_with_something_of_their_own_obey_the_law(
    name: str, layout: str, tmp_path: Path
) -> None:
    folder = save_random(name, OBEYING[name], tmp_path)
    model = streams.load(folder, layout=layout, phi=6, boundary="token")
    source = streams.random_units(7, VOCAB_SIZE, seed=1)
    target = [*streams.random_ids(7, VOCAB_SIZE, seed=2), END]
    assert streams.law_gap(model, source, target, K) <= TOLERANCE


@pytest.mark.parametrize("name", REFUSED)
def test_families_that_cannot_obey_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    model_type, config, reason = REFUSED[name]
    folder = save_random(model_type, config, tmp_path)
    with pytest.raises(ValueError, match=f"model type '{model_type}' .*{reason}"):
        load(folder)


def test_encoder_decoders_are_refused(tmp_path: Path) -> None:
    shape = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=VOCAB_SIZE, **shape))
    tokenizer = build("byte_level")
    with pytest.raises(ValueError, match="'t5' cannot stream: it is an encoder-decoder"):
        StreamingCausalLM(model, tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="cannot load a causal LM from .*T5Config"):
        load(tmp_path)


def test_what_has_no_single_stack_of_layers_is_refused() -> None:
    text = SimpleNamespace(model_type="blt")  # a real one takes half a minute to be made
    config = SimpleNamespace(get_text_config=lambda: text, is_encoder_decoder=False)
    with pytest.raises(ValueError, match="'blt' cannot stream: it is several stacks of layers"):
        check_family(SimpleNamespace(config=config))  # type: ignore[arg-type]


class TestALawThatIsBroken:
    """The check at loading finds what no list of families names."""

    @staticmethod
    def model() -> StreamingCausalLM:
        settings = StreamSettings(prompt=PROMPT)
        return StreamingCausalLM(
            random_model("qwen2", OBEYING["cohere"]), build("byte_level"), settings
        )

    def test_an_obedient_model_passes(self) -> None:
        check_law(self.model())

    @pytest.mark.parametrize("ignored", ["position_ids", "attention_mask", "the cache"])
    def test_a_decoder_that_ignores_an_input(self, ignored: str) -> None:
        streaming = self.model()
        decoder = streaming.model.get_decoder()
        forward = decoder.forward
        names = CACHE_ARGUMENTS if ignored == "the cache" else (ignored,)

        def deaf(**kwargs: object) -> object:
            return forward(**{key: v for key, v in kwargs.items() if key not in names})

        decoder.forward = deaf
        with pytest.raises(ValueError, match="'qwen2' cannot stream: "):
            check_law(streaming)

    def test_a_model_that_changes_its_logits_afterwards(self) -> None:
        streaming = self.model()
        forward = streaming.model.forward

        def changed(*args: object, **kwargs: object) -> object:
            output = forward(*args, **kwargs)
            output.logits = output.logits * 1.01
            return output

        streaming.model.forward = changed
        with pytest.raises(ValueError, match="more than a causal decoder .* by 0.0099 of"):
            check_law(streaming)

    def test_a_model_that_fails_on_the_way(self) -> None:
        streaming = self.model()
        streaming.model.get_decoder().layers[0].self_attn.forward = None
        with pytest.raises(ValueError, match="'qwen2' cannot stream: TypeError: .*not callable"):
            check_law(streaming)


class TestPositionsThatEnd:
    """Learned positions, and rotary angles that change at some length: streams up to there."""

    @pytest.mark.parametrize("name", ["gpt2", "opt", "longrope"])
    def test_a_stream_stops_at_the_limit_with_an_error(self, name: str, tmp_path: Path) -> None:
        model_type, config = LONGROPE if name == "longrope" else (name, OBEYING[name])
        folder = save_random(model_type, config, tmp_path)
        limit = 24 if name == "longrope" else 64
        model = streams.load(folder, prompt=Prompt(), boundary="token")
        assert model.limit == limit
        session = Session(model, WaitK(k=limit + 9))
        source = [[token] for token in streams.random_ids(limit + 1, VOCAB_SIZE, seed=1)]
        units = streams.as_units(source, final=False)
        session.push(units[:limit])  # positions 0 to limit - 1
        with pytest.raises(ValueError, match=f"position {limit}, .*'{model_type}' has {limit} of"):
            session.push(units[limit:])

    def test_the_limit_of_longrope_is_where_the_law_ends(self, tmp_path: Path) -> None:
        model = streams.load(save_random(*LONGROPE, tmp_path), prompt=Prompt(), boundary="token")
        source = streams.random_units(14, VOCAB_SIZE, seed=1)
        assert sum(map(len, source)) > 25
        target = [*streams.random_ids(3, VOCAB_SIZE, seed=2), END]
        model.forced, model.limit = {0: target}, None
        g = schedule.wait_k(K, len(source), len(target) - 1)
        streams.feed(Session(model, Fixed(trace=tuple(g))), streams.as_units(source), 1)
        sample = streams.sample_of(model.prompt, source, target)
        expected = streams.masked_logits(model, sample, [[*g, len(source)]])[0]
        assert gap(model.recorded(len(target)), expected) > 1e-2

    def test_rotary_models_have_none(self, tmp_path: Path) -> None:
        assert streams.load(save_tiny("qwen3", tmp_path)).limit is None


class TestFolders:
    def test_a_folder_or_name_that_is_not_there(self, tmp_path: Path) -> None:
        for name in (tmp_path / "absent", "no-such-model", "a/b/c", "./x"):
            with pytest.raises(ValueError, match=r"no model .*: not a folder here, not a hub id"):
                load(name)

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="there is no config.json in it"):
            load(tmp_path)

    @pytest.mark.parametrize("family", ["qwen2", "llama"])
    def test_a_model_without_a_tokenizer(self, family: str, tmp_path: Path) -> None:
        """Some tokenizer classes load from nothing and know no text."""
        folder = save_tiny(family, tmp_path)
        for path in folder.glob("*token*"):
            path.unlink()
        with pytest.raises(ValueError, match=r"tokenizer.*tokenizer\.save_pretrained\(folder\)"):
            load(folder)

    def test_a_tokenizer_of_two_plain_files_is_one(self, tmp_path: Path) -> None:
        folder = save_tiny("qwen2", tmp_path)
        state = json.loads((folder / "tokenizer.json").read_text())["model"]
        for path in folder.glob("*token*"):
            path.unlink()
        (folder / "vocab.json").write_text(json.dumps(state["vocab"]))
        merges = "\n".join(" ".join(pair) for pair in state["merges"])
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
        tokenizer = pretrained.load_tokenizer(str(folder))
        assert tokenizer.decode(tokenizer.encode("Der Hund")) == "Der Hund"

    def test_a_tokenizer_without_a_model(self, tmp_path: Path) -> None:
        build("byte_level").save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=f"cannot load a causal LM from '{tmp_path}'"):
            load(tmp_path)

    def test_settings_beside_the_model_are_taken(self, tmp_path: Path) -> None:
        folder = save_tiny("qwen3", tmp_path, chat=True)
        stored = StreamSettings(layout="interleaved", phi=7, boundary="token", prompt=PROMPT)
        stored.save(folder)
        model = load(folder)
        assert model.settings == stored and model.layout.offset[-1] == 7 and model.folder == folder
        other = StreamSettings(prompt=Prompt(target_head="<s>"))
        assert load(folder, settings=other).settings == other

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("{", "streaming.json"),
            ('{"layuot": "grouped"}', "layuot"),
            ('{"layout": "spiral"}', "grouped.*interleaved"),
            ('{"phi": -1}', "phi"),
            ('{"prompt": {"source_head": 3}}', "source_head"),
        ],
    )
    def test_malformed_settings_are_named(self, text: str, named: str, tmp_path: Path) -> None:
        folder = save_tiny("qwen3", tmp_path)
        (folder / "streaming.json").write_text(text)
        with pytest.raises(ValueError, match=named) as raised:
            load(folder)
        assert str(folder / "streaming.json") in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_without_settings_the_chat_template_is_the_prompt(self, tmp_path: Path) -> None:
        model = load(save_tiny("qwen3", tmp_path, chat=True))
        expected = Prompt(
            source_head="<s>user\n", source_tail="<|end|>\n", target_head="<s>assistant\n"
        )
        assert model.settings == StreamSettings(prompt=expected)
        assert model.tokenizer.decode(model.prompt.target_head) == "<s>assistant\n"

    def test_without_a_chat_template_there_is_no_prompt(self, tmp_path: Path) -> None:
        model = load(save_tiny("qwen3", tmp_path))
        assert model.settings == StreamSettings()
        assert model.prompt.target_head == (model.tokenizer.bos_token_id,)

    def test_weights_are_fp32_on_a_cpu_unless_asked_for(self, tmp_path: Path) -> None:
        folder = save_tiny("llama", tmp_path)
        half = load(folder, dtype=torch.bfloat16)
        assert half.model.dtype == torch.bfloat16
        half.model.save_pretrained(folder)
        assert load(folder).model.dtype == torch.float32
