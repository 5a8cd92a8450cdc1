"""Tiny random models that listen: what tests run in place of trained ones.

Import as `from tests.speech_models import save_tiny_listener`. Units are short (0.16 s), so that a
second of sound has several of them.
"""

import json
from pathlib import Path

import torch
from tests.models import save_tiny

from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.modality.speech.making import new_front_end
from proactivellm.modality.speech.settings import SpeechSettings

UNIT_S = 0.16
MAX_NEW_TOKENS = 12  # of a turn: a random model ends no target by itself
_ENCODER = {
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "max_source_positions": 256,
}


def tiny_front_end(lm_width: int = 32, gate: GateSettings | None = None) -> SpeechFrontEnd:
    """A front end with random weights, the same on every call, in eval mode.

    Args:
        lm_width: of the language model.
        gate: of silence; None = everything passes.
    """
    settings = SpeechSettings(unit=8, stack=4, hidden=32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        front_end = new_front_end(_ENCODER, {"feature_size": 16}, settings, lm_width)
        with torch.no_grad():  # wide, so that the target depends on what is heard
            for parameter in front_end.projector.parameters():
                parameter.copy_(torch.randn_like(parameter))
    front_end.gate = gate
    return front_end.eval()


def save_tiny_listener(
    folder: str | Path,
    gate: GateSettings | None = None,
    tokenizer: str = "byte_level",
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Path:
    """Saves a tiny model with a front end, as `load` reads them.

    Args:
        folder: is made.
        gate: of silence; None = everything passes.
        tokenizer: a key of `tests.tokenizers.TOKENIZERS`.
        max_new_tokens: at which each target is cut.

    Returns:
        The folder.
    """
    folder = save_tiny("qwen3", folder, tokenizer)
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text()) | {"max_new_tokens": max_new_tokens}
    file.write_text(json.dumps(settings))
    tiny_front_end(gate=gate).save(folder, dtype=torch.float32)
    return folder
