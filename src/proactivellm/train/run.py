"""A recipe carried out: tokenizer, model, data, trainer; resumable; ends with a model folder."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from proactivellm.files.replace import replacing_in, write_text
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.model.hub import find_folder
from proactivellm.model.layout import Layout
from proactivellm.model.prompt import StreamSettings, encode_prompt
from proactivellm.tasks.data import read_items
from proactivellm.tasks.item import Item
from proactivellm.train.build import make_backbone, make_front_end, make_settings
from proactivellm.train.checkpoints import last_checkpoint
from proactivellm.train.data import (
    InstanceEncoder,
    PackedDataset,
    SampleEncoder,
    ViewPlan,
    concatenation_plan,
)
from proactivellm.train.fit import Fit
from proactivellm.train.inputs import check_out, check_run, claimed
from proactivellm.train.listening import ListeningObjective
from proactivellm.train.losses import Objective
from proactivellm.train.recipe import Recipe
from proactivellm.train.recordings import Recordings
from proactivellm.train.saving import saving
from proactivellm.train.trainer import StreamingTrainer, make_arguments
from proactivellm.train.views import StreamingObjective

TRAINING_LOG = "training_log.jsonl"  # written last

log = logging.getLogger(__name__)


def train(recipe: Recipe, out: str | Path) -> Path:
    """Train by a recipe, continuing from the last checkpoint in `out` if there is one.

    Args:
        recipe: what to train on what.
        out: folder for checkpoints and the final model.

    Returns:
        `out`, now a transformers model folder with `streaming.json`.

    Raises:
        ValueError: if data or model do not fit the recipe, `out` holds another run, or another
            process trains there.
    """
    out = Path(out)
    check_out(recipe, out)
    with claimed(out):
        _train(recipe, out)
    return out


def _train(recipe: Recipe, out: Path) -> None:
    checkpoint = last_checkpoint(out)
    finished = (out / TRAINING_LOG).exists()
    set_seed(recipe.optimisation.seed)
    sources = recipe.data.train if isinstance(recipe.data.train, list) else [recipe.data.train]
    items = [item for source in sources for item in read_items(source)]
    valid = read_items(recipe.data.valid, "valid") if recipe.data.valid else []
    if recipe.data.valid and not valid:
        raise ValueError("[data.valid] holds no pair with text on both sides")
    check_run(recipe, (items, valid), out, continues=finished or checkpoint is not None)
    if finished:
        return
    model, tokenizer = make_backbone(recipe, items, checkpoint)
    settings = make_settings(recipe, tokenizer)
    trainer = make_trainer(recipe, out, (items, valid), (model, tokenizer, settings))
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        save_model(trainer, out, recipe.output.dtype)
    trainer.accelerator.wait_for_everyone()  # so that no process returns to half a model


def make_trainer(
    recipe: Recipe,
    out: Path,
    data: tuple[list[Item], list[Item]],
    parts: tuple[PreTrainedModel, PreTrainedTokenizerBase, StreamSettings],
) -> StreamingTrainer:
    """The trainer of a recipe, ready to run.

    Args:
        recipe: what to train on what.
        out: folder for checkpoints.
        data: training and validation instances.
        parts: model, tokenizer, stream settings.

    Returns:
        The trainer.
    """
    items, valid = data
    model, tokenizer, settings = parts
    wish, optimisation = recipe.objective, recipe.optimisation
    text = SampleEncoder(
        tokenizer, encode_prompt(tokenizer, settings.prompt), tokenizer.eos_token_id
    )
    front_end = make_front_end(recipe, model) if recipe.speech else None
    encoder = InstanceEncoder(text, make_recordings(recipe, front_end) if front_end else None)
    objective = Objective(**wish.model_dump(include=set(Objective.__dataclass_fields__)))
    views = ViewPlan(
        full=objective.needs_full,
        boundary=settings.boundary,
        early_end=settings.early_end,
        **wish.model_dump(include=set(ViewPlan.__dataclass_fields__)),
    )
    args = make_arguments(trainer_arguments(recipe), str(out))
    layout = settings.make_layout()
    fit = Fit(model, encoder, layout, recipe.data.skip_too_long)
    plan = _plan(recipe, items, args.world_size, fit)
    valid = [item for item in valid if fit([item])]
    _report(fit.left_out)
    return StreamingTrainer(
        settings=settings,
        tokenizer=tokenizer,
        valid=[encoder.join([item]) for item in valid],
        encoder=text,
        model=make_objective(recipe, (model, front_end), layout, objective),
        args=args,
        train_dataset=PackedDataset(items, plan, encoder, views, layout, optimisation.seed),
        eval_dataset=valid or None,
    )


def make_recordings(recipe: Recipe, front_end: SpeechFrontEnd) -> Recordings:
    """Samples from audio, as the recipe wants them.

    Args:
        recipe: has `[speech]`.
        front_end: makes the features.

    Returns:
        What encodes recordings.
    """
    assert recipe.speech is not None
    return Recordings(front_end, recipe.speech.augment, recipe.speech.gate)


def make_objective(
    recipe: Recipe,
    parts: tuple[PreTrainedModel, SpeechFrontEnd | None],
    layout: Layout,
    objective: Objective,
) -> StreamingObjective:
    """What is trained: the LM alone, or with its front end.

    Args:
        recipe: may have `[speech]`.
        parts: model, front end or None.
        layout: of the packed sequences.
        objective: loss weights.

    Returns:
        The module.
    """
    model, front_end = parts
    if recipe.speech is None or front_end is None:
        return StreamingObjective(model, layout, objective)
    listening = ListeningObjective(model, layout, objective, front_end, recipe.speech.ctc_weight)
    if recipe.speech.pretrained:
        listening.load_ctc_head(find_folder(recipe.speech.pretrained))
    return listening


def _report(left_out: list[str]) -> None:
    if left_out:
        log.warning(
            "%d samples that need more positions than the model has are left out, first %s",
            len(left_out),
            left_out[0],
        )


def _plan(recipe: Recipe, items: list[Item], num_processes: int, fit: Fit) -> list[tuple[int, ...]]:
    """Which instances make up each sample."""
    optimisation = recipe.optimisation
    size = optimisation.batch_size * optimisation.gradient_accumulation * num_processes
    plan = concatenation_plan(
        [_length(item) for item in items],
        recipe.data.concat,
        optimisation.epochs,
        size,
        optimisation.seed,
        lambda sample: fit([items[i] for i in sample]),
    )
    if not plan:
        raise ValueError(
            f"{len(items)} instances, {recipe.data.concat[0]} to {recipe.data.concat[1]} in a "
            f"sample, do not fill one update of {size} samples (optimisation.batch_size x "
            "gradient_accumulation x processes): give more, or lower these"
        )
    return plan


def _length(item: Item) -> float:
    """How long an instance is, in any unit, so that those of a batch are alike."""
    heard = 25.0 * (item.duration_s or 0.0)
    return heard + len(item.source) + 2 * len(item.target)


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
    objective = trainer.accelerator.unwrap_model(trainer.model)
    model = objective.model
    with saving(out), replacing_in(out) as new:
        if isinstance(objective, ListeningObjective):
            objective.save(new, getattr(torch, dtype))
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        model.to(getattr(torch, dtype)).save_pretrained(new)
        trainer.tokenizer.save_pretrained(new)
        trainer.settings.save(new)
    history = "\n".join(json.dumps(line) for line in trainer.state.log_history)
    write_text(out / TRAINING_LOG, history + "\n")
    log.info("model saved to %s", out)
