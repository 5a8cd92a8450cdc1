"""Tiny random front ends: what tests listen with instead of downloads.

Import as `from tests.modality.speech.fronts import new_encoder, noise`. Weights are drawn wide
enough that attention is peaked: a wrong mask or position would hide below a tolerance otherwise.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.tokenizers import build
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    Qwen2AudioConfig,
    Qwen2AudioEncoder,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from proactivellm.modality.speech.encoder import AttentionSettings, CausalEncoder
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.making import new_front_end
from proactivellm.modality.speech.settings import SpeechSettings
from tokenizers import AddedToken

BANDS = 16
SHAPE = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "max_source_positions": 160,
}
AUDIO_TOKENS = ["<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>", "<|im_start|>", "<|im_end|>"]
FEATURES = {  # the hop and window of Whisper, and those of a smaller model
    160: {"feature_size": BANDS, "hop_length": 160, "n_fft": 400},
    320: {"feature_size": BANDS, "hop_length": 320, "n_fft": 512},
}


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode, with weights that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter += 0.2 * noise
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5 * 1.5)
    return module.eval()


def new_tower(kind: str = "whisper", **shape: Any) -> Any:
    """A tower of the classes of transformers: `whisper` or `qwen2-audio`."""
    if kind == "whisper":
        tower = WhisperEncoder(WhisperConfig(num_mel_bins=BANDS, **{**SHAPE, **shape}))
    else:
        config = Qwen2AudioEncoderConfig(num_mel_bins=BANDS, **{**SHAPE, **shape})
        tower = Qwen2AudioEncoder(config)
    return randomise(tower)


def new_encoder(kind: str = "whisper", positions: int = 160, **attention: int) -> CausalEncoder:
    """A causal encoder around a tower."""
    tower = new_tower(kind, max_source_positions=positions)
    return CausalEncoder(tower, AttentionSettings(**attention)).eval()


def new_listener(
    hop: int = 320, lm_width: int = 24, positions: int = 160, **settings: int
) -> SpeechFrontEnd:
    """A front end; `settings` are those of `SpeechSettings`."""
    units = SpeechSettings(hidden=16, **settings)
    shape = {**SHAPE, "max_source_positions": positions}
    front_end = new_front_end(shape, FEATURES[hop], units, lm_width)
    randomise(front_end)
    return front_end


def save_qwen2_audio(folder: Path) -> Path:
    """Saves a tiny checkpoint of the real classes, with a processor; returns the folder."""
    tokenizer = copy.deepcopy(build("byte_level"))
    tokenizer.add_tokens([AddedToken(token, special=True) for token in AUDIO_TOKENS])
    text = {"model_type": "qwen2", "hidden_size": 32, "intermediate_size": 48, "eos_token_id": 2}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", "num_mel_bins": BANDS, **SHAPE},
        text_config={**text, "vocab_size": len(tokenizer), "max_position_embeddings": 4096},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    randomise(Qwen2AudioForConditionalGeneration(config)).save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=BANDS)
    Qwen2AudioProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def save_whisper(
    folder: Path, kind: type[PreTrainedModel] = WhisperForConditionalGeneration
) -> Path:
    """Saves a tiny Whisper, and its feature extractor; returns the folder."""
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(num_mel_bins=BANDS, vocab_size=50, **SHAPE, **decoder, **tokens)
    randomise(kind(config)).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=BANDS).save_pretrained(folder)
    return folder


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose level rises and falls."""
    samples = np.random.default_rng(seed).standard_normal(num_samples)
    level = 0.2 + 0.15 * np.sin(np.arange(num_samples) / 3000)
    return np.clip(samples * level, -1, 1).astype(np.float32)


def random_mel(num_frames: int, seed: int = 0) -> np.ndarray:
    """Frames [T, F]."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((num_frames, BANDS)).astype(np.float32)


def pieces(array: np.ndarray, size: int | None, seed: int = 0) -> list[np.ndarray]:
    """The array in pieces of this size; None = ragged ones, empty ones among them."""
    if size is not None:
        return np.split(array, range(size, len(array), size))
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(array) + 1, 9))
    return np.split(array, np.repeat(cuts, [1, 2, 1, 1, 1, 1, 1, 1, 1]))


def gap(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())
