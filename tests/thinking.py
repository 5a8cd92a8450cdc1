"""Tiny models that think: control tokens added to those of `tests.models`."""

import copy
import functools

import torch
from tests.models import tiny_model
from tests.tokenizers import build

from proactivellm.backbone.prompt import Prompt, StreamSettings
from proactivellm.backbone.thinking import Thinking
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.train.control_token import add_thinking

THINKING = Thinking()
PROMPT = Prompt(source_head="<s>:", source_tail="<|end|>.", target_head="<s>=")


@functools.cache
def _with_tokens(family: str) -> tuple:
    tokenizer = copy.deepcopy(build("byte_level"))
    model = tiny_model(family, len(tokenizer))
    with torch.random.fork_rng():  # of all rows that are new, some are nobody's
        torch.manual_seed(0)
        add_thinking(model, tokenizer, THINKING)
    rows = tokenizer.convert_tokens_to_ids([*THINKING.tokens])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # which are new, and would all be as probable
        for layer in {model.get_input_embeddings(), model.get_output_embeddings()}:
            values = 0.25 * torch.randn(len(rows), layer.weight.shape[1], generator=generator)
            layer.weight[rows] = values
    return model, tokenizer


def thinking_model(
    family: str = "qwen3",
    layout: str = "thoughts",
    phi: int = 0,
    of: type[StreamingCausalLM] = StreamingCausalLM,
) -> StreamingCausalLM:
    """A tiny model with tokens to think with; a copy that may be changed.

    Args:
        of: its class.
    """
    model, tokenizer = _with_tokens(family)
    settings = StreamSettings(layout=layout, phi=phi, prompt=PROMPT, thinking=THINKING)
    return of(copy.deepcopy(model), tokenizer, settings)
