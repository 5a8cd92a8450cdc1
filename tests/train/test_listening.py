"""Training a model that listens: recordings as samples, audio in packed sequences, whole runs."""

import json

import numpy as np
import pytest
import soundfile
import torch
from tests.modality.speech.fronts import save_whisper
from tests.train.learners import ENCODER, FEATURES, heard_and_read, make_listener
from tests.train.runs import logged
from tests.two_groups import target_of, units_of

from proactivellm.backbone.prompt import PromptIds
from proactivellm.core.layout import grouped
from proactivellm.core.packing import IGNORE, MEDIA_ID
from proactivellm.files.toml import load_toml
from proactivellm.modality.kinds import KINDS, Kind
from proactivellm.modality.loading import load
from proactivellm.modality.speech.augmentation import Augmentation
from proactivellm.modality.speech.ctc import CtcHead
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.making import new_front_end
from proactivellm.modality.speech.recordings import Recordings
from proactivellm.modality.speech.settings import SpeechSettings
from proactivellm.policy.spec import parse_policy
from proactivellm.stream import Job, run_streams
from proactivellm.tasks.data import DataSource, read_items
from proactivellm.tasks.item import Item
from proactivellm.tasks.speech import read_manifest
from proactivellm.train.recipe import Recipe
from proactivellm.train.run import train
from proactivellm.train.samples import ItemEncoder, PackedDataset, SampleEncoder
from proactivellm.train.schedules import ViewPlan
from proactivellm.train.tokenizer import train_tokenizer
from proactivellm.train.views import collate

WORDS = {"low": 300.0, "mid": 900.0, "high": 2400.0}  # spoken as tones, in Hz
RECIPE = """
[[data.train]]
manifest = "FOLDER/train.jsonl"
[[data.train]]
source = "FOLDER/lines.txt"
target = "FOLDER/lines.txt"
[data.valid]
manifest = "FOLDER/train.jsonl"
limit = 4
[backbone]
model_type = "qwen3"
vocab_size = 300
[backbone.config]
hidden_size = 32
num_hidden_layers = 1
intermediate_size = 64
num_attention_heads = 2
num_key_value_heads = 2
head_dim = 16
tie_word_embeddings = true
initializer_range = 0.1
[speech]
ctc_weight = 0.5
[speech.features]
feature_size = 20
hop_length = 320
n_fft = 512
[speech.encoder]
d_model = 32
encoder_layers = 1
encoder_attention_heads = 2
encoder_ffn_dim = 64
max_source_positions = 100
init_std = 0.06
[speech.units]
unit = 4
stack = 2
hidden = 32
[optimisation]
epochs = EPOCHS
batch_size = 4
learning_rate = 3e-3
precision = "fp32"
[output]
save_steps = 4
eval_steps = 4
log_steps = 1
dtype = "float32"
"""


def tone(hertz: float, seconds: float = 0.4) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A folder with a manifest of spoken words, one question, and some lines of text."""
    folder = tmp_path_factory.mktemp("spoken")
    lines = []
    for word, hertz in WORDS.items():
        soundfile.write(folder / f"{word}.wav", tone(hertz), 16000)
        lines.append({"audio": f"{word}.wav", "text": word, "duration_s": 0.4})
    for first, second in (("low", "high"), ("high", "mid"), ("mid", "low"), ("high", "low")):
        lines.append({"audio": [f"{first}.wav", f"{second}.wav"], "text": f"{first} {second}"})
    lines.append({"audio": "mid.wav", "question": "which ?", "text": "mid", "answers": ["mid"]})
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "lines.txt").write_text("low high\nmid\n" * 2)
    return folder


@pytest.fixture(scope="module")
def encoder():
    tokenizer = train_tokenizer(["low mid high which ?"], 300)
    prompt = PromptIds(source_head=(1,), source_tail=(3,), target_head=(2,))
    return SampleEncoder(tokenizer, prompt, tokenizer.eos_token_id)


def recordings(**augmentation) -> Recordings:
    torch.manual_seed(0)
    front_end = new_front_end(ENCODER, FEATURES, SpeechSettings(unit=4, stack=2, hidden=32), 32)
    return Recordings(front_end, Augmentation(**augmentation), None)


def test_a_recording_becomes_units_of_placeholders(spoken, encoder):
    items = read_manifest(spoken / "train.jsonl")
    sample = ItemEncoder(encoder, recordings()).join([items[3]])
    assert sample.features.shape == (-(-(2 * 6400 + 1600) // 320), 20)  # with the gap between
    sizes = [unit.count(MEDIA_ID) for unit in units_of(sample)]
    assert sizes == [0, 2, 2, 2, 2, 2, 2]  # prompt; 23 outputs and 1 before them, in pairs
    assert units_of(sample)[0] == (1,) and units_of(sample)[-1][-1] == 3
    assert encoder.tokenizer.decode(target_of(sample)[:-1]).strip() == "low high"
    assert sample.transcript == "low high"


def test_a_question_is_read_first_and_is_no_transcript(spoken, encoder):
    items = read_manifest(spoken / "train.jsonl")
    sample = ItemEncoder(encoder, recordings()).join([items[-1]])
    texts = [unit for unit in units_of(sample)[1:] if MEDIA_ID not in unit]
    assert encoder.tokenizer.decode([t for unit in texts for t in unit]).strip() == "which ?"
    assert units_of(sample).index(texts[-1]) == 2  # then come the units of audio
    assert not sample.transcript and items[-1].answers == ("mid",)


def test_augmentation_is_a_function_of_the_generator(spoken, encoder):
    (item, *_) = read_manifest(spoken / "train.jsonl")
    wish = {
        "speed": (0.8, 1.2),
        "gain_db": (-6, 6),
        "noise_share": 1.0,
        "narrow_share": 0.5,
        "time_masks": 1,
        "band_masks": 1,
        "band_mask": 4,
    }
    heard = ItemEncoder(encoder, recordings(**wish))
    plain, one, same, other = (
        heard.join([item], rng) for rng in (None, *map(np.random.default_rng, (1, 1, 2)))
    )
    assert np.array_equal(one.features, same.features)
    assert one.features.shape != other.features.shape  # another speed
    assert not np.array_equal(plain.features[:5], one.features[:5])
    assert target_of(one) == target_of(plain)


def test_masks_cover_what_they_may(spoken, encoder):
    (item, *_) = read_manifest(spoken / "train.jsonl")
    heard, plain = recordings(band_masks=1, band_mask=4), recordings()
    original = plain.read([item.media]).features
    widths = set()
    for seed in range(8):
        masked = heard.read([item.media], np.random.default_rng(seed)).features
        changed = np.flatnonzero(np.abs(masked - original).max(0) > 1e-4)
        widths.add(len(changed))
        if len(changed):
            assert changed[-1] - changed[0] == len(changed) - 1  # neighbours
            assert np.allclose(masked[:, changed], original.mean(), atol=1e-5)
    assert 1 < len(widths) <= 5 and max(widths) <= 4


def test_edges_are_cut_and_padded(tmp_path, encoder):
    lengths = {}
    for name, edge_s in (("tight", 0.0), ("wide", 1.0)):
        samples = np.pad(tone(300.0, 0.6), int(16000 * edge_s))
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000)
        item = Item("", "low", media=(str(tmp_path / f"{name}.wav"),))
        heard = recordings(edges_s=(0.2, 0.5))
        lengths[name] = [
            0.02 * len(heard.read([item.media], np.random.default_rng(seed)).features)
            for seed in range(5)
        ]
    assert lengths["tight"] == pytest.approx(lengths["wide"], abs=0.05)  # told apart no more
    assert 1.0 <= min(lengths["tight"]) < max(lengths["tight"]) <= 1.62


def test_in_silence_and_noise_there_is_nothing_to_write(spoken, encoder):
    (item, *_) = read_manifest(spoken / "train.jsonl")
    silent = ItemEncoder(encoder, recordings(nothing_share=1.0))
    sample = silent.join([item], np.random.default_rng(0))
    assert target_of(sample) == [encoder.end_token_id] and not sample.transcript
    assert silent.join([item]).transcript == "low"


def test_texts_and_recordings_share_a_batch(spoken, encoder):
    items = [*read_manifest(spoken / "train.jsonl")[:2], Item("low high", "low high")]
    heard = ItemEncoder(encoder, recordings())
    views = ViewPlan()
    dataset = PackedDataset(items, [(0,), (2,), (1,)], heard, views, grouped(), 0)
    batch = collate([dataset[i] for i in range(3)])
    assert batch["features"].shape == (2, 20, 20) and batch["feature_rows"].tolist() == [0, 2]
    assert (batch["input_ids"][1] >= 0).all() and (batch["input_ids"][[0, 2]] < 0).any(1).all()
    spelt = [bytes(row[row != IGNORE].tolist()).decode() for row in batch["transcript"]]
    assert spelt == ["low", "mid"]


def test_audio_without_a_front_end_is_refused(spoken, encoder):
    with pytest.raises(ValueError, match=r"give the recipe \[speech\]"):
        ItemEncoder(encoder).join(read_manifest(spoken / "train.jsonl")[:1])


def test_media_of_another_kind_are_refused(encoder, monkeypatch):
    monkeypatch.setitem(KINDS, "frames", Kind(lambda: None, lambda name: name.endswith(".npy")))
    with pytest.raises(ValueError, match=r"there is frames among the items: .* \[frames\]"):
        ItemEncoder(encoder, recordings()).join([Item("", "low", media=("a.npy",))])


def make_recipe(spoken, folder, epochs: int, edit=lambda text: text) -> Recipe:
    path = folder / "recipe.toml"
    text = RECIPE.replace("FOLDER", str(spoken)).replace("EPOCHS", str(epochs))
    path.write_text(edit(text))
    return load_toml(path, Recipe)


def test_a_whole_run_learns_and_its_model_listens(spoken, tmp_path):
    out = train(make_recipe(spoken, tmp_path, 30), tmp_path / "out")
    losses = [entry for entry in logged(out) if "loss" in entry]
    assert losses[-1]["loss_batch"] < 0.5 * losses[0]["loss_batch"]
    assert losses[-1]["ctc"] < 0.7 * losses[0]["ctc"]
    for entry in losses:
        parts = entry["loss_batch"] + entry["loss_mslm"] + 0.1 * entry["kl"] + 0.5 * entry["ctc"]
        assert entry["loss"] == pytest.approx(parts, abs=2e-3)
    model = load(out)
    model.front_end.gate = None
    jobs = [Job(index=0, source="", media=(str(spoken / "low.wav"),), task="asr")]
    (instance,) = run_streams(model, parse_policy("offline"), jobs)
    assert instance.source_type == "speech" and instance.source_length == 400.0
    assert set(instance.delays) <= {400.0} and instance.compute_ms > 0


def test_an_interrupted_run_goes_on_with_the_same_front_end(spoken, tmp_path):
    recipe = make_recipe(spoken, tmp_path, 4)
    whole = train(recipe, tmp_path / "whole")
    broken = train(recipe, tmp_path / "broken")
    for file in ("checkpoint-12", "checkpoint-11"):
        if (broken / file).exists():
            __import__("shutil").rmtree(broken / file)
    again = train(recipe, broken)
    states = [SpeechFrontEnd.load(folder, 32).state_dict() for folder in (whole, again)]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_mistakes_in_the_speech_table(spoken, tmp_path):
    with pytest.raises(ValueError, match="no multiple of stack"):
        make_recipe(spoken, tmp_path, 1, lambda text: text.replace("stack = 2", "stack = 3"))
    with pytest.raises(ValueError, match="lower bound 1.2 is above"):
        make_recipe(
            spoken, tmp_path, 1, lambda text: text + "[speech.augment]\nspeed = [1.2, 0.8]\n"
        )
    recipe = make_recipe(
        spoken, tmp_path, 1, lambda text: text.replace("d_model = 32", "d_model = 33")
    )
    with pytest.raises(ValueError, match=r"\[speech\] does not fit"):
        train(recipe, tmp_path / "out")

    def thinking(text):
        pairs, alone = text.index("[[data.train]]\nsource"), text.index("[data.valid]")
        text = (text[:pairs] + text[alone:]).replace("ctc_weight = 0.5\n", "")
        return text.replace("[speech]", "[thinking]\ndepth = [1, 1]\n[speech]")

    with pytest.raises(ValueError, match=r"goes with texts and with \[video\]"):
        train(make_recipe(spoken, tmp_path, 1, thinking), tmp_path / "out")


def test_manifest_mistakes_are_named(tmp_path):
    file = tmp_path / "bad.jsonl"
    for line, reason in (
        ('{"text": "a"}', "line 1: .*give either `audio`, `video` or `source`"),
        ('{"audio": "a.wav", "words": 3}', "line 1: .*words"),
        ("[1]", "line 1: .*no JSON object"),
        ("{", "line 1"),
    ):
        file.write_text(line + "\n")
        with pytest.raises(ValueError, match=reason):
            read_items(DataSource(manifest=str(file)))


ONLY_CTC = "[objective]\nbatch_weight = 0\nmslm_weight = 0\nkl_weight = 0\n[optimisation]"


def test_an_encoder_learns_to_hear_first_and_is_taken_over(spoken, tmp_path):
    def hear(text: str) -> str:
        text = text.replace('[[data.train]]\nsource = "FOLDER', "").replace("eval_steps = 4", "")
        lines = text.replace("[optimisation]", ONLY_CTC).splitlines()
        start = next(i for i, line in enumerate(lines) if "lines.txt" in line)
        return "\n".join(lines[: start - 1] + lines[start + 2 :])

    first = train(make_recipe(spoken, tmp_path, 12, hear), tmp_path / "first")
    losses = [entry for entry in logged(first) if "loss" in entry]
    assert losses[-1]["ctc"] < 0.7 * losses[0]["ctc"]
    assert "loss_batch" not in losses[0]  # what is not learnt is not computed
    assert losses[0]["loss"] == pytest.approx(0.5 * losses[0]["ctc"], abs=1e-3)

    taken = f'[speech]\npretrained = "{first}"\nctc_weight = 0.5\n'

    def go_on(text: str) -> str:
        start, end = text.index("[speech]"), text.index("[optimisation]")
        return text[:start] + taken + text[end:]

    second = train(make_recipe(spoken, tmp_path, 1, go_on), tmp_path / "second")
    begins = [entry for entry in logged(second) if "loss" in entry][0]
    assert begins["ctc"] < 0.8 * losses[0]["ctc"]  # encoder and CTC head are those of before
    assert CtcHead.load(second, 32).weight.shape == (257, 32)


def around(encoder: str, units: str = ""):
    """An edit of the recipe that takes an encoder from elsewhere."""

    def edit(text: str) -> str:
        start, end = text.index("[speech]"), text.index("[optimisation]")
        return f'{text[:start]}[speech]\npretrained = "{encoder}"\n{units}\n{text[end:]}'

    return edit


def test_a_whisper_is_an_encoder_that_learns_and_streams(spoken, tmp_path):
    whisper = save_whisper(tmp_path / "whisper")
    units = "ctc_weight = 0.5\n[speech.units]\nunit = 4\nstack = 2\nhidden = 32"
    recipe = make_recipe(spoken, tmp_path, 6, around(whisper, units))
    out = train(recipe, tmp_path / "out")
    losses = [entry for entry in logged(out) if "loss" in entry]
    assert losses[-1]["ctc"] < losses[0]["ctc"]
    model = load(out)
    model.front_end.gate = None
    assert model.front_end.settings == SpeechSettings(unit=4, stack=2, hidden=32)
    jobs = [Job(index=0, source="", media=(str(spoken / "low.wav"),), task="asr")]
    (instance,) = run_streams(model, parse_policy("wait-k:1"), jobs)
    assert instance.source_length == 400.0 and instance.forwards > 1


def test_what_is_taken_over_is_not_configured_again(spoken, tmp_path):
    with pytest.raises(ValueError, match="`encoder` and `features` are those of `pretrained`"):
        edit = around("speech-en", "[speech.encoder]\nd_model = 8")
        make_recipe(spoken, tmp_path, 1, edit)


def test_what_hears_only_runs_no_language_model(monkeypatch):
    learner = make_listener(batch_weight=0.0, mslm_weight=0.0, kl_weight=0.0)
    monkeypatch.setattr(learner.model, "get_decoder", None)  # it is not asked for
    heard, read = heard_and_read(learner, 0)
    learnt = learner(**collate([heard, read]))
    learnt["loss"].backward()
    assert learner.part_names == ["ctc"] and learnt["loss"] == 0.5 * learnt["parts"][0] > 0
    with pytest.raises(ValueError, match="nothing can be learnt from a batch of texts .* ctc"):
        learner(**collate([read]))


def test_a_recipe_that_learns_nothing_is_refused(spoken, tmp_path):
    def nothing(text: str) -> str:
        return text.replace("ctc_weight = 0.5", "").replace("[optimisation]", ONLY_CTC)

    with pytest.raises(ValueError, match="nothing would be learnt"):
        make_recipe(spoken, tmp_path, 1, nothing)
