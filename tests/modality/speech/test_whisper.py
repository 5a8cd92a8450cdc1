"""The encoder of a Whisper of transformers, taken over into a front end to be trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.backbone import broken
from tests.modality.speech.fronts import SHAPE, gap, noise, pieces, save_whisper
from tests.models import save_tiny
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperModel

from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.making import pretrained_front_end
from proactivellm.modality.speech.resample import RATE
from proactivellm.modality.speech.settings import SpeechSettings

UNITS = SpeechSettings(unit=8, stack=4, hidden=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_whisper(tmp_path / "whisper")


@pytest.mark.parametrize("kind", [WhisperForConditionalGeneration, WhisperModel])
def test_its_weights_are_taken_over(kind: type, tmp_path: Path) -> None:
    folder = save_whisper(tmp_path, kind)
    front_end = pretrained_front_end(folder, UNITS, 32)
    encoder = kind.from_pretrained(folder).get_encoder()
    taken = front_end.encoder.tower.state_dict()
    assert taken.keys() == encoder.state_dict().keys()
    assert all(torch.equal(value, taken[name]) for name, value in encoder.state_dict().items())
    assert front_end.settings == UNITS and front_end.projector.outer.out_features == 32


def test_in_one_block_it_encodes_as_whisper_does(folder: Path) -> None:
    """All that transformers does from samples to outputs, on what fills its window."""
    front_end = pretrained_front_end(
        folder, SpeechSettings(unit=200, stack=4, block=200), 32
    ).eval()
    whole = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    samples = noise(2 * SHAPE["max_source_positions"] * 160)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    mel_1FT = extractor(samples, sampling_rate=RATE, padding=False, return_tensors="pt")
    mel_1FT = mel_1FT["input_features"]
    num_frames = torch.tensor([mel_1FT.shape[2]])
    with torch.inference_mode():
        expected = whole.get_encoder()(mel_1FT).last_hidden_state
        assert gap(front_end.encoder(mel_1FT.transpose(1, 2), num_frames), expected) < 1e-5


def test_it_streams_what_it_encodes_whole(folder: Path, tmp_path: Path) -> None:
    front_end = pretrained_front_end(folder, UNITS, 32)
    front_end.save(tmp_path, torch.float32)
    again, samples = SpeechFrontEnd.load(tmp_path, 32), noise(2 * RATE)
    ear = again.open(RATE)
    units = [unit for push in pieces(samples, 3000) for unit in ear.push(push, 0.0)]
    streamed = torch.cat([unit.features for unit in [*units, *ear.finish(2.0)] if not unit.is_end])
    with torch.inference_mode():
        assert gap(streamed, again.embed(samples)) < 1e-4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            broken.weights(lambda w: w.pop("model.encoder.layer_norm.weight")),
            r"lack 1 weight \(.*encoder.layer_norm.weight\)",
        ),
        (
            broken.weights(lambda w: w.update({"model.other": torch.ones(1)})),
            "no place for 1 weight",
        ),
        (broken.cut("model.safetensors", 2000), "model.safetensors is cut or broken"),
        (broken.setting(d_model=64), "shape"),
        (broken.setting(model_type="bart"), "model type is 'bart', not 'whisper'"),
        (broken.cut("config.json", 20), "config.json is not JSON"),
        (lambda f: (f / "preprocessor_config.json").unlink(), "preprocessor_config.json"),
        (broken.setting("preprocessor_config.json", feature_size=8), "have 8 bands at 16000 Hz"),
        (broken.setting("preprocessor_config.json", sampling_rate=8000), "16 bands at 8000 Hz"),
    ],
)
def test_what_does_not_fit_is_told(change: broken.Change, told: str, folder: Path) -> None:
    change(folder)
    with pytest.raises(ValueError, match=told) as raised:
        pretrained_front_end(folder, UNITS, 32)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def test_a_model_of_text_has_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no encoder of speech: it has no speech/speech.json"):
        pretrained_front_end(save_tiny("qwen3", tmp_path), UNITS, 32)


def test_another_listener_keeps_its_units(folder: Path, tmp_path: Path) -> None:
    pretrained_front_end(folder, UNITS, 32).save(tmp_path)
    assert pretrained_front_end(tmp_path, None, 32).settings == UNITS
    with pytest.raises(ValueError, match="has units of its own"):
        pretrained_front_end(tmp_path, SpeechSettings(), 32)


def test_for_another_lm_it_gets_another_projector(folder: Path, tmp_path: Path) -> None:
    first = pretrained_front_end(folder, UNITS, 32)
    first.save(tmp_path, torch.float32)
    second = pretrained_front_end(tmp_path, None, 48)
    assert second.projector.outer.out_features == 48 and second.settings == UNITS
    mel_1TF = torch.from_numpy(log_mel(noise(RATE), first.extractor))[None]
    heard = [each.eval().encode(mel_1TF, torch.tensor([100])) for each in (first, second)]
    assert torch.equal(*heard)


def test_nothing_said_is_no_unit_lost(folder: Path) -> None:
    ear = pretrained_front_end(folder, UNITS, 32).eval().open(RATE)
    assert ear.push(np.zeros(0, np.float32), 0.0) == []
    assert ear.finish(0.0)[-1].final
