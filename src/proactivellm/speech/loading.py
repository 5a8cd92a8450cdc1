"""One entry point for models that listen: a causal LM and what it hears with."""

from pathlib import Path

import torch
from transformers import PreTrainedConfig

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.model.loading import bundled_models
from proactivellm.speech.front_end import FOLDER, SpeechFrontEnd, has_speech, load_front_end
from proactivellm.speech.qwen2_audio import MODEL_TYPE, load_qwen2_audio

DEFAULT_SPEECH_MODEL = "speech-en"


def listens(name: str | Path) -> bool:
    """Whether a model has a front end for speech.

    Args:
        name: name of a bundled model, model folder, or hub id.
    """
    folder = bundled_models().get(str(name), Path(name))
    return has_speech(folder) or _model_type(name) == MODEL_TYPE


def load_speech(
    name: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    quantization: str = "none",
    trust_remote_code: bool = False,
) -> tuple[StreamingCausalLM, SpeechFrontEnd]:
    """Load a model that listens.

    Args:
        name: name of a bundled model, a folder with `speech/`, or a folder or hub id of
            Qwen2-Audio.
        device: where to put the model.
        dtype: of the LM's weights; fp32 on CPU and that of the file elsewhere if left out.
        quantization: `int8` keeps the weights of the LM's linear layers in 8 bits (extra `quant`).
        trust_remote_code: run code that the LM brings, with all rights of this process.

    Returns:
        The LM, checked against the streaming law, and the front end, which is its `front_end`.

    Raises:
        ValueError: if there is no such model, or it has no front end.
    """
    if _model_type(name) == MODEL_TYPE:
        if quantization != "none":
            raise ValueError(f"quantization={quantization!r}: Qwen2-Audio is loaded as it is")
        model, front_end = load_qwen2_audio(name, device=device, dtype=dtype)
    else:
        folder = bundled_models().get(str(name), Path(name))
        if folder.is_dir() and not has_speech(folder):
            raise ValueError(_deaf(name))
        model = StreamingCausalLM.from_pretrained(
            name,
            device=device,
            dtype=dtype,
            quantization=quantization,
            trust_remote_code=trust_remote_code,
        )
        if model.folder is None:
            raise ValueError(_deaf(name))
        width = model.model.config.get_text_config().hidden_size
        front_end = load_front_end(model.folder, width, device)
    model.front_end = front_end
    return model, front_end


def _model_type(name: str | Path) -> str | None:
    """What `config.json` says, where there is one; what is wrong with it is told on loading."""
    if str(name) in bundled_models() or not (Path(name).is_dir() or str(name).count("/") == 1):
        return None
    try:
        config, _ = PreTrainedConfig.get_config_dict(str(name))
        return str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _deaf(name: str | Path) -> str:
    able = [bundled for bundled, folder in bundled_models().items() if has_speech(folder)]
    return (
        f"the model {str(name)!r} does not listen: it has no folder {FOLDER}/ and is no "
        f"Qwen2-Audio; give one that does (bundled: {', '.join(able) or 'none'}), or train one "
        "by a recipe with [speech]"
    )
