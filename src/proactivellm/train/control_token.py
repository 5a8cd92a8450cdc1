"""Control tokens of a run: their names, their place in tokenizer and model, what adapters train."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from proactivellm.backbone.hub import find_folder
from proactivellm.backbone.prompt import Prompt, StreamSettings, load_settings, token_id_of
from proactivellm.backbone.thinking import Thinking
from proactivellm.train.recipe import Recipe

READ = "<READ>"


def read_token(recipe: Recipe) -> str | None:
    """That of the recipe's settings, or the one that the backbone has; READ if it is to be learnt.

    None: there is none. Settings with a prompt of their own stand for those beside the backbone,
    its token included.
    """
    given = recipe.stream or StreamSettings()
    name, trust = recipe.backbone.pretrained, recipe.backbone.trust_remote_code
    asks = name and given.prompt == Prompt() and not given.read_token
    stored = load_settings(find_folder(name, trust)) if name and asks else None
    known = given.read_token or (stored and stored.read_token)
    return known or (READ if recipe.objective.control_weight else None)


def thinking_tokens(recipe: Recipe) -> Thinking | None:
    """The tokens to think with: the recipe's, or where it names none those that the backbone has.

    None: the recipe's model does not think. ValueError if the backbone does, and the recipe says
    nothing of it.
    """
    table, name = recipe.thinking, recipe.backbone.pretrained
    if table is None and recipe.stream is not None:  # whatever the backbone has, it is not used
        return None
    stored = load_settings(find_folder(name, recipe.backbone.trust_remote_code)) if name else None
    known = stored.thinking if stored else None
    if table is None and known is not None:
        raise ValueError(f"{name} thinks while it reads: give the recipe [thinking]")
    if table is None:
        return None
    named = table.model_fields_set & set(Thinking.model_fields)
    return known if known is not None and not named else table.tokens_alone


def add_token(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Make it one of the special tokens, which no text becomes, unless there is one of its name."""
    if token not in tokenizer.get_vocab():
        tokenizer.add_tokens([token], special_tokens=True)


def add_row(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Add a token to a model and its tokenizer; one that the tokenizer has stays as it is.

    Its row begins as the mean of the others: with no preference, and about as probable as the least
    probable ones.
    """
    if token in tokenizer.get_vocab():
        return
    add_token(tokenizer, token)
    token_id = token_id_of(tokenizer, token)
    assert token_id is not None
    if token_id >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(token_id + 1, mean_resizing=False)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    with torch.no_grad():
        for layer in layers:
            for values in (layer.weight, getattr(layer, "bias", None)):
                if values is not None:
                    values[token_id] = values[:token_id].mean(0)


def add_thinking(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, thinking: Thinking
) -> None:
    """Add the control tokens of thoughts that a model and its tokenizer lack; see `add_row`."""
    for token in thinking.tokens:
        add_row(model, tokenizer, token)


def trained_rows(
    model: PreTrainedModel, token_ids: Sequence[int], fed: bool
) -> dict[str, list[int]]:
    """What adapters train of the layers that tokens have rows in, by name of the layer.

    That is the layer which gives them logits and, if they are `fed` to the model too, the one of
    their embeddings.

    Raises:
        ValueError: the first has a bias, which peft would leave out of all logits.
    """
    embeddings, output_layer = model.get_input_embeddings(), model.get_output_embeddings()
    if getattr(output_layer, "bias", None) is not None:
        raise ValueError(
            f"the output layer of model type {model.config.model_type!r} has a bias, with which "
            "adapters cannot train the row of a control token: leave [lora] out"
        )
    tied = embeddings.weight is output_layer.weight  # peft keeps them so by itself
    layers = [output_layer] if not (tied or fed) else [embeddings, output_layer][: 2 - tied]
    names = {id(each): name for name, each in model.named_modules()}
    return {names[id(layer)]: [*token_ids] for layer in layers}
