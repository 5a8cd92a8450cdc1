"""A whole Whisper that hears a recording at once: what streaming is compared with, and labels by.

Legend: N = samples, T = mel frames, F = mel bands, S = encoder steps, D = encoder width, V =
tokens.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

from proactivellm.backbone.folder import check_json_files, refusing
from proactivellm.backbone.weights import load_whole
from proactivellm.modality.speech.resample import RATE

_TASK = ["<|en|>", "<|transcribe|>"]
_ENGLISH_ONLY = 51864  # tokens of a model that is told neither language nor task
_MOST_TOKENS = 200  # of half a minute of speech


class Transcript(NamedTuple):
    """What was said, by a model."""

    text: str
    confidence: float  # mean log-probability of its tokens, 0 = certain


class OfflineWhisper:
    """Whisper as transformers has it, for English, greedy, without times.

    Recordings have 30 s at most, and are padded to that. Its folder holds the feature extractor,
    the tokenizer and a generation configuration. ValueError if it does not, or is broken.
    """

    def __init__(self, folder: Path) -> None:
        what = f"cannot load a Whisper from {str(folder)!r}"
        check_json_files(folder)
        kind = WhisperForConditionalGeneration
        self.model = load_whole(kind, folder, what, dtype=torch.float32).eval()
        with refusing(what):
            self.extractor = WhisperFeatureExtractor.from_pretrained(
                folder, trust_remote_code=False
            )
            self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            stored = GenerationConfig.from_pretrained(folder, trust_remote_code=False)
        knows_more = self.model.config.vocab_size > _ENGLISH_ONLY
        self.prompt = self.tokenizer.convert_tokens_to_ids(
            ["<|startoftranscript|>", *_TASK * knows_more, "<|notimestamps|>"]
        )
        self.end = stored.eos_token_id
        self.never = stored.suppress_tokens or []
        self.never_first = stored.begin_suppress_tokens or []

    def mel(self, samples_N: np.ndarray) -> np.ndarray:
        """Frames [T, F] of a recording and the silence after it, as Whisper was trained on them."""
        made = self.extractor(samples_N, sampling_rate=RATE, return_tensors="np")
        frames: np.ndarray = made["input_features"][0].T
        return frames

    @torch.inference_mode()
    def hear(self, mel_TF: np.ndarray) -> Tensor:
        """Encoder outputs [1, S, D] of 30 s."""
        mel_1FT = torch.from_numpy(np.ascontiguousarray(mel_TF.T))[None]
        states: Tensor = self.model.get_encoder()(mel_1FT).last_hidden_state
        return states

    @torch.inference_mode()
    def write(self, states_1SD: Tensor) -> Transcript:
        """The text that the decoder finds in the outputs of 30 s."""
        known, cache = [*self.prompt], None
        written: list[int] = []
        scores: list[float] = []
        while len(written) < _MOST_TOKENS:
            out = self.model(
                decoder_input_ids=torch.tensor([known]),
                encoder_outputs=BaseModelOutput(last_hidden_state=states_1SD),
                past_key_values=cache,
                use_cache=True,
            )
            logits_V, cache = out.logits[0, -1].float(), out.past_key_values
            logits_V[self.never] = -torch.inf
            if not written:
                logits_V[self.never_first] = -torch.inf
            score, best = logits_V.log_softmax(-1).max(-1)
            scores.append(float(score))
            if (token := int(best)) == self.end:
                break
            written.append(token)
            known = [token]
        text = self.tokenizer.decode(written, skip_special_tokens=True)
        return Transcript(text.strip(), float(np.mean(scores)))

    def transcribe(self, samples_N: np.ndarray) -> Transcript:
        """What is said in a recording of 30 s at most, float32 [N] at 16 kHz."""
        return self.write(self.hear(self.mel(samples_N)))
