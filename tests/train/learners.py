"""Learners of the objectives that some keys of a recipe ask for."""

from dataclasses import replace

import numpy as np
import torch
from tests.models import tiny_model
from tests.train.samples import random_sample, random_schedules
from tests.two_groups import sample_of, views_of
from transformers import PreTrainedModel

from proactivellm.core.layout import Layout, grouped
from proactivellm.core.packing import MEDIA_ID, Packed, pack
from proactivellm.modality.speech.making import new_front_end
from proactivellm.modality.speech.settings import SpeechSettings
from proactivellm.train.learner import Learner
from proactivellm.train.objectives.catalogue import make_objectives
from proactivellm.train.objectives.ctc import CtcSettings
from proactivellm.train.objectives.objective import FRONT_END
from proactivellm.train.recipe import Objectives

ENCODER = {
    "d_model": 32,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "max_source_positions": 100,
}
FEATURES = {"feature_size": 20, "hop_length": 320, "n_fft": 512}


def make_learner(model: PreTrainedModel, layout: Layout | None = None, **keys: object) -> Learner:
    """A model with its objectives; the keys are those of `[objective]`."""
    table = Objectives(**keys)
    objectives = make_objectives({"objective": table}, model)
    return Learner(model, layout or grouped(), objectives, logits_mib=table.logits_mib)


def make_listener(**keys: object) -> Learner:
    """A model that listens, with CTC beside the objectives of some keys; five rows at once."""
    model = tiny_model("qwen3")
    torch.manual_seed(0)
    width, settings = model.config.hidden_size, SpeechSettings(unit=4, stack=2, hidden=32)
    front_end = new_front_end(ENCODER, FEATURES, settings, width)
    tables = {"objective": Objectives(**keys), FRONT_END: CtcSettings(ctc_weight=0.5)}
    learner = Learner(model, grouped(), make_objectives(tables, model, front_end), front_end)
    learner.rows_per_chunk = lambda num_views: 5
    return learner.eval()


def heard_and_read(learner: Learner, seed: int) -> list[Packed]:
    """A sample with a recording, and one of text."""
    rng = np.random.default_rng(seed)
    mel_TF = rng.standard_normal((40, 20), np.float32)
    units = [[MEDIA_ID] * size for size in learner.front_end.unit_sizes(len(mel_TF))]
    spoken = sample_of([[1], *units], [1], [5, 6, 2])
    samples = [replace(spoken, features=mel_TF, transcript="ab"), random_sample(rng, 4, 6)]
    return [pack(each, views_of(random_schedules(rng, each, 1)), grouped()) for each in samples]
