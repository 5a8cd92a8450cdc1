"""The backbone of a recipe: tokenizer, model and stream settings, loaded or made from scratch."""

import inspect
import tempfile

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from proactivellm.config import did_you_mean
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.modality.speech.making import new_front_end, pretrained_front_end
from proactivellm.model.backbone import recompute_activations
from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.model.hub import find_folder
from proactivellm.model.law import check_law
from proactivellm.model.pretrained import load_pretrained, load_tokenizer
from proactivellm.model.prompt import Prompt, StreamSettings, chat_prompt, load_settings
from proactivellm.model.vocabulary import check_tokens
from proactivellm.tasks.data import texts
from proactivellm.tasks.item import Item
from proactivellm.train.attention import PACKED_ATTENTION, register
from proactivellm.train.recipe import Backbone, Lora, Recipe
from proactivellm.train.tokenizer import END, SOURCE, TARGET, train_tokenizer

# Names that older configuration files use for what is now `rope_parameters`.
_ROPE_KEYS = ("rope_theta", "rope_scaling", "partial_rotary_factor")


def make_backbone(
    recipe: Recipe, items: list[Item], checkpoint: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The pretrained backbone, or a new model of the configured shape with its own tokenizer.

    Args:
        recipe: names the backbone.
        items: training text, for a new tokenizer.
        checkpoint: of an interrupted run, whose tokenizer is taken.

    Returns:
        The model in fp32 (mixed precision is the Trainer's), with adapters if asked for, and the
        tokenizer. Attention is that of sessions, so that training and streaming agree.

    Raises:
        ValueError: if the backbone cannot be loaded or made, or its family cannot stream.
    """
    backbone = recipe.backbone
    if backbone.pretrained:
        trust = backbone.trust_remote_code
        folder = find_folder(backbone.pretrained, trust)
        model, tokenizer = load_pretrained(folder, dtype=torch.float32, trust_remote_code=trust)
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of {backbone.pretrained!r} has no EOS token, which closes the "
                "target: set `eos_token` in its tokenizer_config.json"
            )
        end_generation_with(model, tokenizer.eos_token_id)
    else:
        tokenizer = load_tokenizer(checkpoint) if checkpoint else new_tokenizer(backbone, items)
        model = new_model(backbone, tokenizer)
    streaming = StreamingCausalLM(model, tokenizer)  # which also knows the families to refuse
    check_tokens(streaming)
    check_law(streaming)
    register()
    model.set_attn_implementation(PACKED_ATTENTION)
    if recipe.optimisation.gradient_checkpointing:
        recompute_activations(model)
    return (add_adapters(model, recipe.lora) if recipe.lora else model), tokenizer


def end_generation_with(model: PreTrainedModel, token_id: int) -> None:
    """Make a token one of those that end generation, as training closes every target with it.

    Args:
        model: its generation settings are extended, and saved with it.
        token_id: the tokenizer's EOS token, which is not always among them.
    """
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    if token_id not in ends:
        model.generation_config.eos_token_id = [*ends, token_id]


def new_tokenizer(backbone: Backbone, items: list[Item]) -> PreTrainedTokenizerBase:
    """A tokenizer trained on the instances, which loads again as it is.

    Args:
        backbone: its model type and vocabulary size.
        items: training text.

    Returns:
        The tokenizer.

    Raises:
        ValueError: if the vocabulary is too small, or transformers has a tokenizer class of its own
            for the model type and would load another tokenizer than the one saved.
    """
    tokenizer = train_tokenizer(texts(items), backbone.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        new_config(backbone, tokenizer).save_pretrained(folder)
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if loaded.backend_tokenizer.to_str() != tokenizer.backend_tokenizer.to_str():
        raise ValueError(
            f"backbone.model_type: transformers loads any tokenizer of {backbone.model_type!r} as "
            f"{type(loaded).__name__}, which changes one trained here; take another type, such as "
            "'qwen3' or 'llama'"
        )
    return tokenizer


def new_config(backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The configuration of a model trained from scratch.

    Args:
        backbone: its model type and the keyword arguments of its configuration.
        tokenizer: gives the vocabulary and the control tokens.

    Returns:
        The configuration.

    Raises:
        ValueError: if transformers does not know the type or a key, or a value does not fit.
    """
    if backbone.model_type not in CONFIG_MAPPING:
        hint = _nearest(str(backbone.model_type), list(CONFIG_MAPPING.keys()))
        raise ValueError(f"backbone.model_type: unknown {backbone.model_type!r}{hint}")
    kind = CONFIG_MAPPING[backbone.model_type]
    given = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    known = [*inspect.signature(kind).parameters, *kind.attribute_map, *_ROPE_KEYS]
    for key in backbone.config:
        if key in given:
            raise ValueError(f"backbone.config.{key} follows from the tokenizer: leave it out")
        if key not in known:
            hint = _nearest(key, known)
            raise ValueError(f"backbone.config: {backbone.model_type} has no key '{key}'{hint}")
    try:
        return AutoConfig.for_model(backbone.model_type, **given, **backbone.config)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise ValueError(f"backbone.config does not fit: {' '.join(str(error).split())}") from None


def new_model(backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model of the configured shape with random weights.

    Args:
        backbone: its type and shape.
        tokenizer: gives the vocabulary and the control tokens.

    Returns:
        The model in fp32.

    Raises:
        ValueError: if there is no causal LM of that type, or none of that shape.
    """
    config = new_config(backbone, tokenizer)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"backbone.model_type: {backbone.model_type!r} is not a causal LM")
    try:
        return AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(f"backbone.config does not fit: {' '.join(str(error).split())}") from None


def make_front_end(recipe: Recipe, model: PreTrainedModel) -> SpeechFrontEnd:
    """The front end for speech: that of a model folder, or a new one.

    Args:
        recipe: has `[speech]`.
        model: the causal LM it is made for.

    Returns:
        The front end in fp32, with the attention that training uses.

    Raises:
        ValueError: if it cannot be loaded, or the configuration does not fit.
    """
    speech, width = recipe.speech, model.config.get_text_config().hidden_size
    assert speech is not None
    if speech.pretrained:
        units = speech.units if "units" in speech.model_fields_set else None
        front_end = pretrained_front_end(find_folder(speech.pretrained), units, width)
    else:
        try:
            front_end = new_front_end(speech.encoder, speech.features, speech.units, width)
        except (StrictDataclassError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"[speech] does not fit: {reason}") from None
    front_end.gate = speech.gate or front_end.gate or GateSettings()  # for streaming
    front_end.encoder.tower.set_attn_implementation(PACKED_ATTENTION)
    return front_end.train()


def add_adapters(model: PreTrainedModel, lora: Lora) -> PreTrainedModel:
    """Freeze a model and add low-rank adapters (Hu et al. 2021).

    Args:
        model: the backbone.
        lora: rank, scaling, places.

    Returns:
        The wrapped model.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def make_settings(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> StreamSettings:
    """Layout and prompt: the recipe's, else those beside the backbone, else the chat template's.

    Args:
        recipe: may hold `[stream]`.
        tokenizer: may hold a chat template.

    Returns:
        The settings saved beside the model; for a model from scratch, with control tokens.

    Raises:
        ValueError: if there is no prompt in the recipe and none can be had from the backbone.
    """
    if recipe.stream and recipe.stream.prompt != Prompt():
        return recipe.stream
    settings = recipe.stream or StreamSettings()
    if not recipe.backbone.pretrained:
        prompt = Prompt(source_head=SOURCE, source_tail=END, target_head=TARGET)
        return settings.model_copy(update={"prompt": prompt})
    name = recipe.backbone.pretrained
    stored = load_settings(find_folder(name))
    if stored and not recipe.instruction:
        return settings.model_copy(update={"prompt": stored.prompt}) if recipe.stream else stored
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {name!r} has no chat template: give the prompt as raw text in "
            "[stream.prompt]"
        )
    return settings.model_copy(update={"prompt": chat_prompt(tokenizer, recipe.instruction)})


def _nearest(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return f"; {hint}" if hint else ""
