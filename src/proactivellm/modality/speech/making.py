"""Front ends to be trained: from scratch, of another model of ours, around a Whisper encoder."""

from pathlib import Path
from typing import Any

import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from proactivellm.backbone.folder import CONFIG_FILE, check_json_files, read_object, refusing
from proactivellm.backbone.weights import load_whole
from proactivellm.modality.kinds import kind_in
from proactivellm.modality.speech.front_end import KIND, SpeechFrontEnd, projected_width
from proactivellm.modality.speech.projector import StackProjector
from proactivellm.modality.speech.resample import RATE
from proactivellm.modality.speech.settings import SpeechSettings

_WHISPER = "whisper"


def new_front_end(
    encoder: dict[str, Any], features: dict[str, Any], settings: SpeechSettings, lm_width: int
) -> SpeechFrontEnd:
    """A front end with random weights for an LM of width H.

    `encoder` and `features` are keyword arguments of `WhisperConfig` and `WhisperFeatureExtractor`.
    """
    extractor = WhisperFeatureExtractor(**features)
    tower = WhisperEncoder(WhisperConfig(num_mel_bins=extractor.feature_size, **encoder))
    projector = StackProjector(tower.config.d_model, settings.stack, settings.hidden, lm_width)
    return SpeechFrontEnd(extractor, tower, projector, settings)


def pretrained_front_end(
    folder: Path, settings: SpeechSettings | None, lm_width: int
) -> SpeechFrontEnd:
    """The front end of a model folder, or a new one around the encoder of a Whisper.

    A projector that was made for an LM of another width is replaced by a new one. ValueError if the
    folder is of neither, is broken, or the settings (None = those of `speech/`, else the defaults)
    are not those of `speech/`, whose projector is made for its own.
    """
    if kind_in(folder) == KIND:
        front_end = SpeechFrontEnd.load(folder, own_width := projected_width(folder))
        if own_width != lm_width:
            encoder, chosen = front_end.encoder, settings or front_end.settings
            projector = StackProjector(encoder.width, chosen.stack, chosen.hidden, lm_width)
            extractor, gate = front_end.extractor, front_end.gate
            return SpeechFrontEnd(extractor, encoder.tower, projector, chosen, gate)
        if settings not in (None, front_end.settings):
            raise ValueError(
                f"{folder} has units of its own ({front_end.settings}): leave them out"
            )
        return front_end
    file = folder / CONFIG_FILE
    kind = read_object(file).get("model_type") if file.is_file() else None
    if kind != _WHISPER:
        raise ValueError(
            f"{folder} holds no encoder of speech: it has no {KIND}/{KIND}.json, and its model "
            f"type is {kind!r}, not {_WHISPER!r}"
        )
    return _around_whisper(folder, settings or SpeechSettings(), lm_width)


def _around_whisper(folder: Path, settings: SpeechSettings, lm_width: int) -> SpeechFrontEnd:
    """Takes the encoder with all its weights; the projector is new."""
    what = f"cannot load a Whisper encoder from {str(folder)!r}"
    check_json_files(folder)
    with refusing(what):
        extractor = WhisperFeatureExtractor.from_pretrained(folder)
    # The decoder is read and dropped: a part that is missing anywhere is told as for any model.
    whole = load_whole(WhisperModel, folder, what, dtype=torch.float32)
    config, rate, bands = whole.config, extractor.sampling_rate, extractor.feature_size
    if (rate, bands) != (RATE, config.num_mel_bins):
        raise ValueError(
            f"{what}: its features have {bands} bands at {rate} Hz, and the encoder takes "
            f"{config.num_mel_bins} bands at {RATE} Hz"
        )
    projector = StackProjector(config.d_model, settings.stack, settings.hidden, lm_width)
    return SpeechFrontEnd(extractor, whole.encoder, projector, settings)
