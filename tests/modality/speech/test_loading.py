"""Models that listen, from disk: folders with `speech/`, and Qwen2-Audio checkpoints."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.backbone import broken
from tests.modality.speech.fronts import SHAPE, gap, new_listener, noise, pieces, save_qwen2_audio
from tests.models import save_tiny
from transformers import Qwen2AudioForConditionalGeneration

from proactivellm.backbone.prompt import StreamSettings
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.kinds import kind_in
from proactivellm.modality.loading import front_end_of, load
from proactivellm.modality.speech import qwen2_audio
from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.resample import RATE
from proactivellm.modality.speech.settings import SpeechSettings
from proactivellm.modality.speech.speech_stream import SpeechStream
from proactivellm.policy.fixed import WaitK
from proactivellm.session.session import Session


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen2_audio(tmp_path_factory.mktemp("qwen2-audio"))


def chunked(front_end, samples):
    stream = SpeechStream(front_end)
    return [u for push in pieces(samples, 3000) for u in stream.push(push)] + stream.finish()


class TestAFolderWithEars:
    def test_it_is_loaded_with_its_lm(self, tmp_path: Path) -> None:
        save_tiny("qwen3", tmp_path)
        front_end = new_listener(320, lm_width=32)
        front_end.save(tmp_path, torch.float32)
        model = load(tmp_path)
        loaded = front_end_of(model, "speech")
        assert isinstance(model, StreamingCausalLM) and kind_in(tmp_path) == loaded.kind
        expected, units = chunked(front_end, noise(RATE)), chunked(loaded, noise(RATE))
        assert units == expected
        for unit, other in zip(units, expected, strict=True):
            assert gap(unit.features, other.features) < 1e-5

    def test_a_front_end_for_another_lm_is_refused(self, tmp_path: Path) -> None:
        save_tiny("qwen3", tmp_path)
        new_listener(320, lm_width=20).save(tmp_path)
        with pytest.raises(ValueError, match="holds no front end of this model"):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (
                broken.weights(lambda w: w.pop("layer_norm.weight")),
                r"lack 1 weight \(layer_norm.weight\)",
            ),
            (broken.weights(lambda w: w.update(other=torch.ones(1))), r"no place for 1 weight"),
            (broken.cut("model.safetensors", 2000), "model.safetensors is cut or broken"),
            (broken.cut("projector.safetensors", 200), "projector.safetensors is cut or broken"),
            (lambda f: (f / "projector.safetensors").unlink(), "projector.safetensors"),
            (broken.setting(d_model=8), "shape|divisible"),
            (broken.cut("config.json", 20), "config.json is not JSON"),
            (broken.cut("preprocessor_config.json", 20), "preprocessor_config.json is not JSON"),
            (broken.setting("speech.json", unit="8"), "speech.json: unit: .*not '8'"),
            (broken.setting("speech.json", units=8), "unknown key 'units' .*mean 'unit'"),
        ],
    )
    def test_a_part_that_is_broken_or_missing_is_told(
        self, change: broken.Change, told: str, tmp_path: Path
    ) -> None:
        new_listener(320, lm_width=32).save(tmp_path)
        change(tmp_path / "speech")
        with pytest.raises(ValueError, match=told) as raised:
            SpeechFrontEnd.load(tmp_path, 32)
        assert str(tmp_path / "speech") in str(raised.value) and "\n" not in str(raised.value)

    def test_a_model_without_is_refused_with_a_remedy(self, tmp_path: Path) -> None:
        save_tiny("qwen3", tmp_path)
        assert kind_in(tmp_path) is None
        with pytest.raises(
            ValueError, match="does not take speech.*speech-en.*train one by a recipe"
        ):
            front_end_of(load(tmp_path), "speech")


class TestQwen2Audio:
    def test_the_prompt_is_that_of_the_processor_around_the_audio(self, qwen_folder: Path) -> None:
        model = load(qwen_folder)
        prompt = model.settings.prompt
        assert prompt.source_head.endswith("Transcribe the speech. Audio 1: <|audio_bos|>")
        assert prompt.source_tail == "<|audio_eos|>\n<|im_end|>\n"
        assert prompt.target_head == "<|im_start|>assistant\n"
        bos, eos = model.tokenizer.convert_tokens_to_ids(["<|audio_bos|>", "<|audio_eos|>"])
        assert model.prompt.source_head[-1] == bos and model.prompt.source_tail[0] == eos
        assert model.end_token_ids == {2}

    def test_settings_of_the_folder_come_first(self, qwen_folder: Path, tmp_path: Path) -> None:
        for path in qwen_folder.iterdir():
            (tmp_path / path.name).symlink_to(path)
        settings = StreamSettings(phi=7)
        settings.save(tmp_path)
        assert load(tmp_path).settings == settings

    def test_its_parameters_are_shared_not_copied(self, qwen_folder: Path) -> None:
        model = load(qwen_folder)
        front_end = model.front_end
        whole = Qwen2AudioForConditionalGeneration.from_pretrained(qwen_folder)
        lm = model.model.get_decoder().state_dict()
        assert lm.keys() == whole.model.language_model.state_dict().keys()
        assert torch.equal(model.model.get_output_embeddings().weight, whole.lm_head.weight)
        assert all(not parameter.is_meta for parameter in model.model.parameters())
        count = sum(p.numel() for m in (model.model, front_end) for p in m.parameters())
        assert count == sum(p.numel() for p in whole.parameters())

    def test_a_session_equals_the_checkpoint_itself_on_the_whole_recording(
        self, qwen_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Offline, in one block: the forward of transformers, audio tokens, masks and all."""
        everything = SpeechSettings(unit=10**6, stack=1, block=10**6)
        monkeypatch.setattr(qwen2_audio, "UNITS", everything)
        model = load(qwen_folder)
        front_end = model.front_end
        whole = Qwen2AudioForConditionalGeneration.from_pretrained(qwen_folder).eval()
        tokenizer, num_frames = model.tokenizer, 2 * SHAPE["max_source_positions"]
        samples = noise(num_frames * 160)
        mel_TF = torch.from_numpy(log_mel(samples, front_end.extractor))
        prompt, target = model.prompt, tokenizer.encode(" The dog", add_special_tokens=False)
        audio = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
        count = front_end.num_embeddings(num_frames)
        ids = [*prompt.source_head, *[audio] * count, *prompt.source_tail, *prompt.target_head]
        with torch.inference_mode():
            expected = whole(
                input_ids=torch.tensor([ids + target]),
                attention_mask=torch.ones(1, len(ids + target)),
                input_features=mel_TF.T[None],
                feature_attention_mask=torch.ones(1, num_frames, dtype=torch.long),
            ).logits
            embeddings_1SH = whole.get_input_embeddings()(torch.tensor([ids + target]))
            start = len(prompt.source_head)
            embedded_1EH = front_end(mel_TF[None], torch.tensor([num_frames]))
            embeddings_1SH[:, start : start + count] = embedded_1EH
            actual = model.model(inputs_embeds=embeddings_1SH).logits
        assert gap(actual, expected) < 1e-4

    def test_it_writes(self, qwen_folder: Path) -> None:
        model = load(qwen_folder)
        front_end = model.front_end
        model.model.generation_config.max_new_tokens = 5
        session = Session(model, WaitK(k=2))
        session.push(chunked(front_end, noise(2 * RATE)))
        assert session.state.finished

    def test_it_takes_an_adapter(self, qwen_folder: Path, tmp_path: Path) -> None:
        """One of the whole model, tower included; settings beside it stand for the model's."""
        plain = load(qwen_folder)
        whole = Qwen2AudioForConditionalGeneration.from_pretrained(qwen_folder)
        adapted = get_peft_model(whole, LoraConfig(r=2, target_modules=["q_proj"]))
        for name, parameter in adapted.named_parameters():
            if "lora" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.save_pretrained(tmp_path)
        plain.settings.model_copy(update={"phi": 7}).save(tmp_path)
        model = load(qwen_folder, adapter=tmp_path)
        assert (model.settings.phi, plain.settings.phi) == (7, 0) and model.prompt == plain.prompt
        language = adapted.merge_and_unload().model.language_model
        with torch.inference_mode():
            ids = torch.tensor([[3, 4, 7, 5]])
            of = [m.model.model(input_ids=ids).last_hidden_state for m in (plain, model)]
            wanted = language(input_ids=ids).last_hidden_state
        assert gap(of[1], wanted) < 1e-5 < gap(of[0], wanted)
        units = [chunked(m.front_end, noise(RATE)) for m in (plain, model)]
        assert gap(units[0][0].features, units[1][0].features) > 1e-5

    def test_a_broken_checkpoint(self, qwen_folder: Path, tmp_path: Path) -> None:
        for path in qwen_folder.iterdir():
            if path.suffix != ".safetensors":
                (tmp_path / path.name).symlink_to(path)
        with pytest.raises(ValueError, match="cannot load Qwen2-Audio from"):
            load(tmp_path)
        stored = broken.load_file(qwen_folder / broken.WEIGHTS)
        lost = next(name for name in stored if "projector" in name)
        stored.pop(lost)
        broken.save_file(stored, tmp_path / broken.WEIGHTS, metadata={"format": "pt"})
        with pytest.raises(ValueError, match="Qwen2-Audio from .*lack 1 weight .*projector"):
            load(tmp_path)
