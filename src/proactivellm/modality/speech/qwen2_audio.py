"""Qwen2-Audio checkpoints (Chu et al. 2024, arXiv 2407.10759) as a streaming LM and its front end.

The audio tower runs causally, and the language model becomes the plain causal LM that it is.
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
from proactivellm.backbone.prompt import Prompt, StreamSettings, load_settings, render_chat
from proactivellm.backbone.weights import add_adapter, load_whole
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.settings import SpeechSettings

UNITS = SpeechSettings(unit=16, stack=1)  # 25 outputs a second, each an embedding: 640 ms
INSTRUCTION = "Transcribe the speech. "


def load_qwen2_audio(
    folder: Path,
    *,
    device: str,
    dtype: torch.dtype | None,
    adapter: Path | None = None,
    merge: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, StreamSettings, SpeechFrontEnd]:
    """The LM of a checkpoint, its tokenizer, stream settings, and the front end.

    Settings are those beside an adapter, else of the folder, else of the chat template; a `dtype`
    of None is the file's. An adapter is one of the whole model, and always merged: the LM is a part
    of that.
    """
    processor, whole = _load_whole(folder, dtype)
    if adapter is not None:
        whole = add_adapter(whole, adapter, merge=True)
    whole = whole.eval().to(device)
    settings = load_settings(adapter or folder) or load_settings(folder)
    settings = settings or StreamSettings(prompt=audio_prompt(processor, INSTRUCTION))
    parts = whole.model
    front_end = SpeechFrontEnd(
        processor.feature_extractor, parts.audio_tower, parts.multi_modal_projector, UNITS
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
