"""A recipe carried out: tokenizer, model, data, trainer; resumable; ends with a model folder."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from proactivellm.model.backbone import layer_windows
from proactivellm.model.prompt import Prompt, StreamSettings, chat_prompt, encode_prompt
from proactivellm.tasks.translation import Pair, read_pairs
from proactivellm.train.data import PackedDataset, SampleEncoder, ViewPlan, concatenation_plan
from proactivellm.train.losses import Objective
from proactivellm.train.recipe import Recipe
from proactivellm.train.tokenizer import END, SOURCE, TARGET, train_tokenizer
from proactivellm.train.trainer import StreamingTrainer, make_arguments
from proactivellm.train.views import StreamingObjective

log = logging.getLogger(__name__)


def train(recipe: Recipe, out: str | Path) -> Path:
    """Train by a recipe, continuing from the last checkpoint in `out` if there is one.

    Args:
        recipe: what to train on what.
        out: folder for checkpoints and the final model.

    Returns:
        `out`, now a transformers model folder with `streaming.json`.

    Raises:
        ValueError: if data or model do not fit the recipe.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = get_last_checkpoint(str(out))
    set_seed(recipe.optimisation.seed)
    pairs = read_pairs(recipe.data.train)
    valid = read_pairs(recipe.data.valid) if recipe.data.valid else []
    tokenizer = make_tokenizer(recipe, pairs, checkpoint)
    model = make_model(recipe, tokenizer)
    settings = make_settings(recipe, tokenizer)
    trainer = make_trainer(recipe, out, (pairs, valid), (model, tokenizer, settings))
    trainer.train(resume_from_checkpoint=checkpoint)
    save_model(trainer, out, recipe.output.dtype)
    return out


def make_tokenizer(
    recipe: Recipe, pairs: list[Pair], checkpoint: str | None = None
) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer, or a new one trained on the pairs.

    Args:
        recipe: names the backbone.
        pairs: training text.
        checkpoint: of an interrupted run, whose tokenizer is taken.

    Returns:
        The tokenizer.

    Raises:
        ValueError: if the recipe names no backbone, or two.
    """
    backbone = recipe.backbone
    if (backbone.pretrained is None) == (backbone.model_type is None):
        raise ValueError("[backbone] needs either `pretrained` or `model_type`, and not both")
    if checkpoint or backbone.pretrained:
        return AutoTokenizer.from_pretrained(checkpoint or backbone.pretrained)
    lines = (text for pair in pairs for text in pair)
    return train_tokenizer(lines, backbone.vocab_size)


def make_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The pretrained backbone, or a new model of the configured shape.

    Args:
        recipe: names the backbone.
        tokenizer: gives a new model its vocabulary and control tokens.

    Returns:
        The model in fp32 (mixed precision is the Trainer's), with adapters if asked for.

    Raises:
        ValueError: if the family cannot stream.
    """
    backbone = recipe.backbone
    if backbone.pretrained:
        model = AutoModelForCausalLM.from_pretrained(backbone.pretrained, dtype=torch.float32)
    else:
        config = AutoConfig.for_model(
            backbone.model_type,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **backbone.config,
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    layer_windows(model.config)
    if recipe.optimisation.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if recipe.lora:
        from peft import LoraConfig, get_peft_model

        lora = recipe.lora
        model = get_peft_model(
            model,
            LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=lora.target_modules,
                task_type="CAUSAL_LM",
            ),
        )
    return model


def make_settings(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> StreamSettings:
    """Layout and prompt: the recipe's, else the chat template's, else control tokens.

    Args:
        recipe: may hold `[stream]`.
        tokenizer: may hold a chat template.

    Returns:
        The settings saved beside the model.
    """
    if recipe.stream and recipe.stream.prompt != Prompt():
        return recipe.stream
    if recipe.backbone.model_type:
        prompt = Prompt(source_head=SOURCE, source_tail=END, target_head=TARGET)
    else:
        prompt = chat_prompt(tokenizer, recipe.instruction)
    return (recipe.stream or StreamSettings()).model_copy(update={"prompt": prompt})


def make_trainer(
    recipe: Recipe,
    out: Path,
    data: tuple[list[Pair], list[Pair]],
    parts: tuple[PreTrainedModel, PreTrainedTokenizerBase, StreamSettings],
) -> StreamingTrainer:
    """The trainer of a recipe, ready to run.

    Args:
        recipe: what to train on what.
        out: folder for checkpoints.
        data: training and validation pairs.
        parts: model, tokenizer, stream settings.

    Returns:
        The trainer.
    """
    pairs, valid = data
    model, tokenizer, settings = parts
    wish, optimisation = recipe.objective, recipe.optimisation
    encoder = SampleEncoder(
        tokenizer, encode_prompt(tokenizer, settings.prompt), tokenizer.eos_token_id
    )
    views = ViewPlan(
        num_partial=wish.num_partial, first_share=wish.first_share, boundary=settings.boundary
    )
    lengths = [len(pair.source) + 2 * len(pair.target) for pair in pairs]
    plan = concatenation_plan(
        lengths,
        recipe.data.concat,
        optimisation.epochs,
        optimisation.batch_size * optimisation.gradient_accumulation,
        optimisation.seed,
    )
    if not plan:
        raise ValueError(f"{len(pairs)} pairs do not fill one batch of {optimisation.batch_size}")
    layout = settings.make_layout()
    objective = Objective(
        **{k: v for k, v in wish.model_dump().items() if k not in ("num_partial", "first_share")}
    )
    return StreamingTrainer(
        settings=settings,
        tokenizer=tokenizer,
        valid=[encoder.encode(*pair) for pair in valid],
        encoder=encoder,
        model=StreamingObjective(model, layout, objective),
        args=make_arguments(trainer_arguments(recipe), str(out)),
        train_dataset=PackedDataset(pairs, plan, encoder, views, layout, optimisation.seed),
        eval_dataset=valid or None,
    )


def trainer_arguments(recipe: Recipe) -> dict[str, Any]:
    """A recipe in the words of TrainingArguments.

    Args:
        recipe: what to train on what.

    Returns:
        Keyword arguments.
    """
    optimisation, output = recipe.optimisation, recipe.output
    evaluates = bool(output.eval_steps and recipe.data.valid)
    return {
        "per_device_train_batch_size": optimisation.batch_size,
        "gradient_accumulation_steps": optimisation.gradient_accumulation,
        "learning_rate": optimisation.learning_rate,
        "lr_scheduler_type": optimisation.schedule,
        "warmup_steps": optimisation.warmup_steps,
        "weight_decay": optimisation.weight_decay,
        "adam_beta1": optimisation.betas[0],
        "adam_beta2": optimisation.betas[1],
        "max_grad_norm": optimisation.max_grad_norm,
        "bf16": optimisation.precision == "bf16",
        "seed": optimisation.seed,
        "save_steps": output.save_steps,
        "save_total_limit": output.keep,
        "logging_steps": output.log_steps,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": output.eval_steps or None,
        "use_cpu": not torch.cuda.is_available(),
    }


def save_model(trainer: StreamingTrainer, out: Path, dtype: str) -> None:
    """Write the final model folder and the log of the run.

    Args:
        trainer: after training.
        out: the folder.
        dtype: of the saved weights.
    """
    model = trainer.accelerator.unwrap_model(trainer.model).model
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.to(getattr(torch, dtype)).save_pretrained(out)
    trainer.tokenizer.save_pretrained(out)
    trainer.settings.save(out)
    history = "\n".join(json.dumps(line) for line in trainer.state.log_history)
    (out / "training_log.jsonl").write_text(history + "\n", encoding="utf-8")
    log.info("model saved to %s", out)
