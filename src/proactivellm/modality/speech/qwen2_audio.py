"""Qwen2-Audio checkpoints (Chu et al. 2024, arXiv 2407.10759) as a streaming LM and its front end.

The parts are those of transformers' Qwen2AudioForConditionalGeneration: the audio tower runs
causally, its projector makes the embeddings, and the language model becomes the plain causal LM
that it is, with the same parameters.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2AudioForConditionalGeneration,
)

from proactivellm.backbone.folder import check_json_files, refusing
from proactivellm.backbone.precision import choose_dtype
from proactivellm.backbone.prompt import Prompt, StreamSettings, load_settings, render_chat
from proactivellm.backbone.weights import load_whole
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.settings import SpeechSettings

UNITS = SpeechSettings(unit=16, stack=1)  # 25 outputs a second, each an embedding: 640 ms
INSTRUCTION = "Transcribe the speech. "


def load_qwen2_audio(
    folder: Path,
    *,
    units: SpeechSettings = UNITS,
    instruction: str = INSTRUCTION,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, StreamSettings, SpeechFrontEnd]:
    """Load a checkpoint.

    Args:
        units: how the tower's outputs become units; `stack` must be 1.
        instruction: read before the audio, unless the folder has a `streaming.json`.
        dtype: of the weights; fp32 on CPU and that of the file elsewhere if left out.

    Returns:
        The LM, its tokenizer, the settings of the folder or those of the chat template, and the
        front end.

    Raises:
        ValueError: if there is no such checkpoint, or the units do not fit its projector.
    """
    if units.stack != 1:
        raise ValueError(f"stack={units.stack}: the projector of Qwen2-Audio takes stack=1")
    chosen = choose_dtype(dtype, device, "none")
    processor, whole = _load_whole(folder, chosen)
    whole = whole.eval().to(device)
    settings = load_settings(folder)
    settings = settings or StreamSettings(prompt=audio_prompt(processor, instruction))
    parts = whole.model
    front_end = SpeechFrontEnd(
        processor.feature_extractor, parts.audio_tower, parts.multi_modal_projector, units
    )
    return _causal_lm(whole), processor.tokenizer, settings, front_end.eval()


def _load_whole(
    folder: Path, dtype: torch.dtype | None
) -> tuple[Any, Qwen2AudioForConditionalGeneration]:
    what = f"cannot load Qwen2-Audio from {str(folder)!r}"
    check_json_files(folder)
    with refusing(what):
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    kind = Qwen2AudioForConditionalGeneration
    return processor, load_whole(kind, folder, what, dtype=dtype or "auto")


def audio_prompt(processor: Any, instruction: str) -> Prompt:
    """Splits the chat template of a `Qwen2AudioProcessor` around the audio.

    The instruction stands before the audio in the user turn, and the target head is the template's
    generation prompt. ValueError if the template is broken, or does not put the audio token in one
    place.
    """
    text = [{"type": "text", "text": instruction}] if instruction else []
    messages = [{"role": "user", "content": [*text, {"type": "audio", "audio_url": ""}]}]
    turns, whole = render_chat(processor, messages)
    if turns.count(processor.audio_token) != 1 or not whole.startswith(turns):
        raise ValueError(f"the chat template does not put {processor.audio_token} in one place")
    head, tail = turns.split(processor.audio_token)
    return Prompt(source_head=head, source_tail=tail, target_head=whole[len(turns) :])


def _causal_lm(whole: Qwen2AudioForConditionalGeneration) -> PreTrainedModel:
    """The language model alone, as its own class has it, around the same parameters."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(whole.config.text_config, trust_remote_code=False)
    setattr(model, model.base_model_prefix, whole.model.language_model)
    model.set_output_embeddings(whole.lm_head)
    model.generation_config = whole.generation_config
    return model
