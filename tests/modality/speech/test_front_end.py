"""The front end on disk, and how outputs become units."""

import json

import pytest
import torch
from tests.modality.speech.fronts import new_listener, noise

from proactivellm.modality.kinds import kind_in
from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.modality.speech.settings import SpeechSettings
from proactivellm.modality.speech.speech_stream import SpeechStream

WIDTH = 24


def forward(front_end):
    mel_TF = torch.from_numpy(log_mel(noise(30_000), front_end.extractor))
    with torch.inference_mode():
        return front_end(mel_TF[None], torch.tensor([len(mel_TF)]))


@pytest.mark.parametrize("gate", [None, GateSettings(pause_s=0.7)], ids=["no-gate", "gate"])
def test_it_is_saved_and_loaded(tmp_path, gate):
    front_end = new_listener(160, unit=6, stack=3, lookahead=2)
    front_end.gate = gate
    expected = forward(front_end)
    front_end.save(tmp_path, torch.float32)
    assert kind_in(tmp_path) == "speech"
    loaded = SpeechFrontEnd.load(tmp_path, WIDTH)
    assert loaded.settings == front_end.settings and loaded.gate == gate
    assert loaded.encoder.attention == front_end.encoder.attention
    assert not loaded.training and torch.equal(forward(loaded), expected)
    assert {path.name for path in (tmp_path / "speech").iterdir()} == {
        *("config.json", "model.safetensors", "preprocessor_config.json"),
        *("projector.safetensors", "speech.json"),
    }


def test_streaming_leaves_no_trace_in_what_is_saved(tmp_path):
    front_end = new_listener(320)
    front_end.save(tmp_path / "before")
    SpeechStream(front_end).push(noise(8000))
    front_end.save(tmp_path / "after")
    for path in (tmp_path / "before" / "speech").iterdir():
        assert path.read_bytes() == (tmp_path / "after" / "speech" / path.name).read_bytes()


def test_settings_without_a_gate_are_those_of_older_models(tmp_path):
    new_listener(320).save(tmp_path)
    stored = json.loads((tmp_path / "speech" / "speech.json").read_text())
    assert set(stored) == {"unit", "stack", "hidden", "block", "lookahead"}


def test_half_precision_on_disk_is_fp32_in_memory(tmp_path):
    front_end = new_listener(320)
    front_end.save(tmp_path)
    loaded = SpeechFrontEnd.load(tmp_path, WIDTH)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert (forward(loaded) - forward(front_end)).abs().max() < 0.05


def test_a_folder_without_one_is_refused(tmp_path):
    assert kind_in(tmp_path) is None
    with pytest.raises(ValueError, match="has no front end for speech"):
        SpeechFrontEnd.load(tmp_path, WIDTH)


@pytest.mark.parametrize("broken", ["speech.json", "config.json", "projector.safetensors"])
def test_a_broken_file_is_named_by_its_folder(tmp_path, broken):
    new_listener(320).save(tmp_path)
    (tmp_path / "speech" / broken).write_text("{}broken")
    with pytest.raises(ValueError, match=f"speech/{broken} is not JSON|speech holds no front end"):
        SpeechFrontEnd.load(tmp_path, WIDTH)


def test_another_width_is_refused(tmp_path):
    new_listener(320).save(tmp_path)
    with pytest.raises(ValueError, match="holds no front end of this model: .*size mismatch"):
        SpeechFrontEnd.load(tmp_path, WIDTH + 1)


def test_units_are_whole_stacks():
    with pytest.raises(ValueError, match="unit = 8 is no multiple of stack = 3"):
        SpeechSettings(unit=8, stack=3)


@pytest.mark.parametrize(
    "settings, sizes",
    [
        ({"unit": 8, "stack": 4}, [2, 2, 2, 1]),  # 25 outputs and 1 short: stacks 0 to 6
        ({"unit": 8, "stack": 1}, [7, 8, 8, 2]),
        ({"unit": 8, "stack": 1, "lookahead": 9}, [6, 8, 8, 3]),  # 10 short: no first unit
        ({"unit": 8, "stack": 8}, [1, 1, 1, 1]),
    ],
    ids=str,
)
def test_sizes_of_units(settings, sizes):
    front_end = new_listener(320, **settings)
    assert front_end.unit_sizes(50) == sizes
    assert sum(sizes) == front_end.num_embeddings(50)
    assert front_end.unit_sizes(0) == []
