"""The backbone of a recipe: tokenizer, model and stream settings, loaded or made from scratch."""

import re
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from proactivellm.backbone.decoder import recompute_activations
from proactivellm.backbone.folder import CONFIG_FILE, read_object, refusing
from proactivellm.backbone.hub import find_folder, name_of
from proactivellm.backbone.precision import quantization_config
from proactivellm.backbone.pretrained import load_pretrained, load_tokenizer
from proactivellm.backbone.prompt import (
    Prompt,
    StreamSettings,
    chat_prompt,
    load_settings,
    token_id_of,
)
from proactivellm.backbone.thinking import ThinkingIds
from proactivellm.backbone.weights import check_adapter
from proactivellm.core.layout import THOUGHT, thoughts
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.law import check_law
from proactivellm.modality.base import FrontEndTable, TrainedFrontEnd
from proactivellm.modality.vocabulary import check_tokens
from proactivellm.tasks.item import Item
from proactivellm.train.arguments import trains_in_bf16
from proactivellm.train.block_attention import PACKED_ATTENTION, register
from proactivellm.train.checkpoints import load_weights
from proactivellm.train.control_token import (
    add_row,
    add_token,
    read_token,
    thinking_tokens,
    trained_rows,
)
from proactivellm.train.recipe import Lora, Recipe
from proactivellm.train.scratch import new_model, new_tokenizer
from proactivellm.train.tokenizer import END, SOURCE, TARGET


def make_backbone(
    recipe: Recipe, items: list[Item], checkpoint: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The pretrained backbone, or a new model of the configured shape with its own tokenizer.

    The model is in fp32 (mixed precision is the Trainer's), with adapters if asked for.
    `checkpoint` is that of an interrupted run, whose tokenizer is taken. ValueError if the backbone
    cannot be loaded or made, or its family cannot stream.
    """
    backbone = recipe.backbone
    trust = backbone.trust_remote_code
    folder = find_folder(backbone.pretrained, trust) if backbone.pretrained else None
    tokens = _control_tokens(recipe)
    if folder is not None:
        model, tokenizer = _pretrained(recipe, folder)
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of {backbone.pretrained!r} has no EOS token, which closes the "
                "target: set `eos_token` in its tokenizer_config.json"
            )
        # Training closes every target with this token, which is not always among those.
        end_generation_with(model, tokenizer.eos_token_id)
        for token in tokens:
            add_row(model, tokenizer, token)
    else:
        tokenizer = load_tokenizer(checkpoint) if checkpoint else new_tokenizer(backbone, items)
        for token in tokens:
            add_token(tokenizer, token)
        model = new_model(backbone, tokenizer)
    streaming = StreamingCausalLM(model, tokenizer)  # which also knows the families to refuse
    check_tokens(streaming)
    check_law(streaming)
    register()
    model.set_attn_implementation(PACKED_ATTENTION)
    if recipe.optimisation.gradient_checkpointing:
        recompute_activations(model)
    if recipe.lora:
        rows = _rows_to_learn(recipe, model, tokenizer)
        model = add_adapters(model, recipe.lora, rows, recipe.front_end)
    return model, tokenizer


def _pretrained(recipe: Recipe, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of a folder, with its encoder where that is what a front end is made of."""
    table = recipe.front_end
    whole = table.load_backbone(folder) if table else None
    if whole is None:
        trust = recipe.backbone.trust_remote_code
        how: dict[str, Any] = {"quantization": _quantization(recipe), "trust_remote_code": trust}
        return load_pretrained(folder, dtype=torch.float32, **how)
    if recipe.lora and recipe.lora.quantization != "none":
        raise ValueError("lora.quantization: a backbone with an encoder is loaded as it is")
    return whole


def _control_tokens(recipe: Recipe) -> list[str]:
    """Tokens that the model of a recipe has to have, whatever tokenizer it brings."""
    token, thinking = read_token(recipe), thinking_tokens(recipe)
    return [*([token] if token else []), *(thinking.tokens if thinking else ())]


def _rows_to_learn(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, list[int]] | None:
    """Rows of the control tokens that are learnt, beside adapters; the recipe says which."""
    thinking = ThinkingIds.of(tokenizer, thinking_tokens(recipe))
    if thinking is not None:
        return trained_rows(model, thinking.all, fed=True)
    read_id = token_id_of(tokenizer, read_token(recipe))
    if read_id is None or not recipe.objective.control_weight:
        return None
    return trained_rows(model, [read_id], fed=False)


def _quantization(recipe: Recipe) -> Any:
    """What keeps the frozen weights in 4 bits, which compute as the Trainer does."""
    if not recipe.lora:
        return None
    dtype = torch.bfloat16 if trains_in_bf16(recipe) else torch.float32
    return quantization_config(recipe.lora.quantization, dtype)


def end_generation_with(model: PreTrainedModel, token_id: int) -> None:
    """Add a token to those that end generation."""
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    if token_id not in ends:
        model.generation_config.eos_token_id = [*ends, token_id]


def make_front_end(
    table: FrontEndTable, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> TrainedFrontEnd:
    """The front end of a recipe's table, in fp32; ValueError if it cannot be loaded or made."""
    front_end: Any = table.make_front_end(model, tokenizer)
    front_end.set_attention(PACKED_ATTENTION)
    return front_end.train()


def add_adapters(
    model: PreTrainedModel,
    lora: Lora,
    rows: dict[str, list[int]] | None = None,
    table: FrontEndTable | None = None,
) -> PreTrainedModel:
    """Freeze a model and add low-rank adapters (Hu et al. 2021).

    `rows` of tokens, by name of their layer, are trained as well. What is the front end of `table`
    gets none.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=rf"{re.escape(table.inside)}\..*" if table and table.inside else None,
        trainable_token_indices=rows,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    if lora.start:
        _start_from(adapted, lora)
    # The adapter alone names its model as others can find it: not by a place in a cache.
    base = Path(model.config.name_or_path)
    adapted.peft_config["default"].base_model_name_or_path = name_of(base)
    return adapted


def _start_from(adapted: PreTrainedModel, lora: Lora) -> None:
    """Give adapters the weights of another run; ValueError if they are none of the same shape."""
    from peft import PeftConfig

    folder = find_folder(lora.start)
    check_adapter(folder)
    with refusing(f"lora.start: {lora.start!r}"):
        stored = PeftConfig.from_pretrained(str(folder))
    if (stored.r, stored.lora_alpha) != (lora.r, lora.alpha):
        raise ValueError(
            f"lora.start: {lora.start!r} has r = {stored.r} and alpha = {stored.lora_alpha}: give "
            "[lora] the same"
        )
    load_weights(adapted, str(folder))


def make_settings(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> StreamSettings:
    """Layout and prompt: the recipe's, else those beside the backbone, else the chat template's;
    for a model from scratch, control tokens. The tokens of the policy `control` and of thoughts,
    if there are any; what thinks has a layout with thoughts.

    ValueError if there is no prompt in the recipe and none can be had from the backbone.
    """
    settings, thinking = _settings(recipe, tokenizer), thinking_tokens(recipe)
    update: dict[str, Any] = {"read_token": read_token(recipe), "thinking": thinking}
    if thinking is not None and THOUGHT not in settings.make_layout().groups:
        update["layout"] = thoughts().name
    return settings.model_copy(update=update)


def _settings(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> StreamSettings:
    if recipe.stream and recipe.stream.prompt != Prompt():
        return recipe.stream
    settings = recipe.stream or StreamSettings()
    if not recipe.backbone.pretrained:
        prompt = Prompt(source_head=SOURCE, source_tail=END, target_head=TARGET)
        return settings.model_copy(update={"prompt": prompt})
    name = recipe.backbone.pretrained
    stored = load_settings(find_folder(name))
    if stored and not (recipe.instruction or recipe.chat):
        return settings.model_copy(update={"prompt": stored.prompt}) if recipe.stream else stored
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {name!r} has no chat template: give the prompt as raw text in "
            "[stream.prompt]"
        )
    prompt = _make_prompt(recipe, tokenizer)
    return settings.model_copy(update={"prompt": prompt})


def _make_prompt(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """That of the chat template, for texts or for what the front end of the recipe takes."""
    table, name = recipe.front_end, recipe.backbone.pretrained
    lm_type = str(read_object(find_folder(str(name)) / CONFIG_FILE).get("model_type"))
    prompt = table.make_prompt(lm_type, tokenizer) if table else None
    if prompt is not None and (recipe.instruction or recipe.chat):
        raise ValueError("instruction and chat are for texts: each line has its `question`")
    return prompt or chat_prompt(tokenizer, recipe.instruction, recipe.chat)
