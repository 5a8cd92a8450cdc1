"""Tiny random models of every supported family: what tests run instead of downloads.

Import as `from tests.models import FAMILIES, save_tiny, tiny_model`. Weights are drawn wide enough
that attention is peaked and logits are far from 0: with the usual initialisation (std 0.02) a wrong
mask or position would hide below the tolerance of a test. Windows are shorter than the streams.
"""

from pathlib import Path

import torch
from tests.tokenizers import build
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

VOCAB_SIZE = 120
WINDOW = 6
CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)

_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_EXTRA = {
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"tie_word_embeddings": True},
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "phi3": {"sliding_window": WINDOW},
    "gemma3_text": {
        "num_hidden_layers": 3,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "query_pre_attn_scalar": 2,  # peaked attention, although queries and keys are normalised
    },
}
FAMILIES = tuple(_EXTRA)
SLIDING = ("mistral", "phi3", "gemma3_text")  # families with layers that see WINDOW positions only


def tiny_config(family: str, vocab_size: int = VOCAB_SIZE) -> PreTrainedConfig:
    """The configuration of a tiny model.

    Args:
        family: one of FAMILIES.
        vocab_size: entries of the embedding.
    """
    shape = {**_SHAPE, "vocab_size": vocab_size, **_EXTRA[family]}
    if family in ("qwen2", "phi3"):
        shape.pop("head_dim")  # hidden_size / num_attention_heads there
    return AutoConfig.for_model(family, **shape)


def tiny_model(family: str, vocab_size: int = VOCAB_SIZE, seed: int = 0) -> PreTrainedModel:
    """A tiny fp32 model in eval mode; the same weights for the same arguments.

    Args:
        family: one of FAMILIES.
        vocab_size: entries of the embedding.
        seed: of the weights.
    """
    model = AutoModelForCausalLM.from_config(tiny_config(family, vocab_size), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:  # norms (1 or, for Gemma, 0 means "as it is") and biases
                parameter += 0.2 * noise
            else:
                parameter.copy_(0.25 * noise)
    return model.eval()


def save_tiny(
    family: str, folder: str | Path, tokenizer: str = "byte_level", chat: bool = False
) -> Path:
    """Saves a tiny model with a tokenizer, as `load` reads them.

    Args:
        family: one of FAMILIES.
        folder: is made.
        tokenizer: a key of `tests.tokenizers.TOKENIZERS`.
        chat: whether the tokenizer has a chat template.

    Returns:
        The folder.
    """
    words = build(tokenizer)
    # Room to spare, as in real models: some tokenizer classes add tokens of their own on loading.
    tiny_model(family, vocab_size=len(words) + 11).save_pretrained(folder)
    words.save_pretrained(folder)
    if chat:  # a file of its own, so that the cached tokenizer stays as it is
        (Path(folder) / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return Path(folder)
