"""Samples that need more positions than the model has: refused or left out before a run starts."""

import logging

import numpy as np
import pytest
import soundfile
import torch
from tests import two_groups
from tests.families import LONGROPE
from tests.models import tiny_model
from tests.tokenizers import build
from tests.train.runs import SCRATCH, make_recipe
from transformers import AutoConfig, AutoModelForCausalLM

from proactivellm.backbone.prompt import PromptIds
from proactivellm.core.layout import grouped, interleaved
from proactivellm.core.packing import Sample, pack
from proactivellm.core.schedule import multinomial, offline
from proactivellm.forward.watch import watch_attention
from proactivellm.modality.speech.augmentation import Augmentation
from proactivellm.modality.speech.making import new_front_end
from proactivellm.modality.speech.recordings import Recordings
from proactivellm.modality.speech.settings import SpeechSettings
from proactivellm.tasks.data import read_items
from proactivellm.tasks.item import Item
from proactivellm.train.assembly import make_trainer
from proactivellm.train.build import make_backbone, make_settings
from proactivellm.train.fit import Fit, positions_needed
from proactivellm.train.run import train
from proactivellm.train.samples import ItemEncoder, SampleEncoder
from proactivellm.train.views import collate, packed_output

LAYOUTS = [grouped(), grouped(9), interleaved(), interleaved(9)]
LENGTHS = [(9, 3), (3, 9), (1, 1)]


def sample_of(source: int, target: int) -> Sample:
    units = [[1], *([3 + unit % 50] for unit in range(source))]
    return two_groups.sample_of(units, [4, 5], [*range(6, 5 + target), 2])


@pytest.mark.parametrize("layout", LAYOUTS, ids=["phi-0", "phi-9", "interleaved", "interleaved-9"])
def test_no_schedule_needs_more_positions_than_are_asked_for(layout):
    rng = np.random.default_rng(0)
    for source, target in LENGTHS:
        sample = sample_of(source, target)
        schedules = [multinomial(source, target, rng) for _ in range(20)]
        packed = pack(sample, two_groups.views_of([offline(source, target), *schedules]), layout)
        assert 1 + max(packed.position) == positions_needed(sample, layout)


def longrope() -> torch.nn.Module:
    """A tiny model whose angles change at position 24, for the whole batch."""
    model_type, config = LONGROPE
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model


def test_the_longest_sample_that_fits_changes_no_neighbour():
    model, layout = longrope(), grouped()
    windows = watch_attention(model).windows
    short = pack(sample_of(3, 3), two_groups.views_of([[3, 3, 3]]), layout)

    def beside(units: int) -> torch.Tensor:
        other = sample_of(units, 3)
        packed = pack(other, two_groups.views_of([offline(units, 3)]), layout)
        with torch.no_grad():
            hidden = packed_output(
                model, collate([short, packed]), layout, windows
            ).last_hidden_state
        return hidden[0, : len(short.input_ids)]

    assert positions_needed(sample_of(23, 3), layout) == 24
    alone = beside(3)
    scale = alone.abs().max()
    assert (beside(23) - alone).abs().max() <= 1e-5 * scale
    assert (beside(24) - alone).abs().max() > 0.1 * scale  # what transformers does beyond


def learned(folder, limit: int) -> str:
    """A recipe for a model with learned positions, of which there are few."""
    shape = SCRATCH[SCRATCH.index("[backbone.config]") : SCRATCH.index("[optimisation]")]
    config = f"[backbone.config]\nn_embd = 32\nn_layer = 1\nn_head = 2\nn_positions = {limit}\n"
    return SCRATCH.replace(shape, config).replace('"qwen3"', '"gpt2"')


def trainer_of(recipe, folder):
    items = read_items(recipe.data.train)
    model, tokenizer = make_backbone(recipe, items)
    parts = (model, tokenizer, make_settings(recipe, tokenizer))
    return make_trainer(recipe, folder, (items, read_items(recipe.data.valid)), parts)


def test_what_does_not_fit_is_named_before_the_run_starts(tmp_path):
    recipe = make_recipe(tmp_path, learned(tmp_path, 12))
    with pytest.raises(ValueError) as error:
        train(recipe, tmp_path / "out")
    message = str(error.value)
    assert "\n" not in message and "pairs.tsv, line " in message
    assert "positions, and model type 'gpt2' has 12" in message
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "training.json"}


def test_what_does_not_fit_is_left_out_if_the_recipe_says_so(tmp_path, caplog):
    text = learned(tmp_path, 12).replace("concat = [1, 2]", "skip_too_long = true")
    with caplog.at_level(logging.WARNING):
        trainer = trainer_of(make_recipe(tmp_path, text), tmp_path / "out")
    (message,) = [record.getMessage() for record in caplog.records if "left out" in record.message]
    count = int(message.split()[0])
    data = trainer.train_dataset
    planned = [index for sample in data.plan for index in sample]
    assert count > 0 and "pairs.tsv, line " in message
    assert 0 < len(planned) < 2 * len(data.items) and len(planned) % 4 == 0
    assert max(max(data[i].position) for i in range(len(data))) < 12
    assert trainer.valid and all(positions_needed(s, grouped()) <= 12 for s in trainer.valid)


def test_a_model_without_a_limit_takes_everything():
    encoder = SampleEncoder(
        build("byte_level"), PromptIds(source_head=(), source_tail=(), target_head=(1,)), 2
    )
    fit = Fit(tiny_model("qwen3"), ItemEncoder(encoder), grouped(), skip=False)
    assert fit([Item("a " * 5000, "b")])


def test_a_recording_counts_as_long_as_augmentation_makes_it(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(16000), 16000)
    item = Item("", "a", media=(str(tmp_path / "a.wav"),), place="m.jsonl, line 1")
    encoder_config = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2}
    features = {"feature_size": 20, "hop_length": 320, "n_fft": 512}
    units = SpeechSettings(unit=4, stack=2, hidden=32)
    front_end = new_front_end(encoder_config, features, units, 32)
    wish = Augmentation(speed=(0.8, 1.2), edges_s=(0.0, 0.5))
    text = SampleEncoder(
        build("byte_level"), PromptIds(source_head=(), source_tail=(), target_head=(1,)), 2
    )
    encoder = ItemEncoder(text, Recordings(front_end, wish, None))

    def size(sample: Sample) -> int:
        return sum(map(len, two_groups.units_of(sample)))

    drawn = [size(encoder.join([item], np.random.default_rng(i))) for i in range(30)]
    assert max(drawn) <= size(encoder.longest([item])) <= max(drawn) + 8

    # 1 s at its slowest, and two edges: 113 frames, 57 steps; joined, it is longer.
    front_end.encoder.tower.config.max_source_positions = 57
    model = tiny_model("qwen3")
    assert Fit(model, encoder, grouped(), skip=True)([item])
    skipping = Fit(model, encoder, grouped(), skip=True)
    assert not skipping([item, item]) and len(skipping.left_out) == 1
    with pytest.raises(ValueError, match="line 1: the recording has .* the encoder has 57 posi"):
        Fit(model, encoder, grouped(), skip=False)([item, item])
