"""Checks that all tokens which a model is given and ends with are rows of its embeddings."""

from typing import TYPE_CHECKING, Any

from proactivellm.modality.text import control_ids

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM


def check_tokens(streaming: "StreamingCausalLM") -> None:
    """Refuse (ValueError) a model whose tokenizer, prompt or end of text is another model's."""
    model, tokenizer = streaming.model, streaming.tokenizer
    rows = min(
        model.get_input_embeddings().weight.shape[0], model.get_output_embeddings().weight.shape[0]
    )
    has = f"the model has {rows} (ids 0 to {rows - 1})"
    # Some models leave out the last control tokens of their tokenizer, which no text becomes.
    of_text = set(tokenizer.get_vocab().values()) - control_ids(tokenizer)
    if of_text and (largest := max(of_text)) >= rows:
        raise ValueError(
            f"the tokenizer has the token {largest}, and {has}: it is the tokenizer of another "
            "model, or the embeddings were not resized to it"
        )
    if streaming.read_id is not None and streaming.read_id >= rows:
        token = streaming.settings.read_token
        raise ValueError(f"the read_token {token!r} is the token {streaming.read_id}, and {has}")
    thinking = streaming.thinking
    if thinking is not None and (largest := max(thinking.all)) >= rows:
        raise ValueError(f"the model thinks with the token {largest}, and {has}")
    prompt = streaming.prompt
    for name in ("source_head", "source_tail", "target_head"):
        for token in getattr(prompt, name):
            if token >= rows:
                text = tokenizer.convert_ids_to_tokens(token)
                raise ValueError(f"the prompt's {name} has the token {token} ({text}), and {has}")
    _check_end(model.generation_config, rows)


def _check_end(generation_config: Any, rows: int) -> None:
    ends = getattr(generation_config, "eos_token_id", None)
    if ends is None:
        return
    each = ends if isinstance(ends, list | tuple) else [ends]
    wrong = [end for end in each if type(end) is not int or not 0 <= end < rows]
    if wrong or not each:
        raise ValueError(
            f"eos_token_id = {ends!r} (generation_config.json, else config.json): give token ids "
            f"from 0 to {rows - 1}, one or a list"
        )
