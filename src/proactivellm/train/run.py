"""A recipe carried out: tokenizer, model, data, trainer. Resumable; ends with a model folder."""

import json
import logging
from contextlib import nullcontext
from pathlib import Path

import torch
from transformers import set_seed

from proactivellm.files.replace import replacing_in, write_text
from proactivellm.tasks.data import read_items
from proactivellm.train.assembly import make_trainer
from proactivellm.train.build import make_backbone, make_settings
from proactivellm.train.checkpoints import last_checkpoint
from proactivellm.train.prefixes import Advance, MakePrefixes
from proactivellm.train.recipe import Recipe
from proactivellm.train.run_inputs import check_out, check_run, claimed
from proactivellm.train.saving import save_final, saving
from proactivellm.train.sharded import put_in, whole_weights
from proactivellm.train.stopping import InOrder, NoStops, Stops
from proactivellm.train.trainer import StreamingTrainer

TRAINING_LOG = "training_log.jsonl"  # written last

log = logging.getLogger(__name__)


ENDING = "the run stops after this update, and saves it first; once more ends it at once"


def train(
    recipe: Recipe,
    out: str | Path,
    make_prefixes: MakePrefixes | None = None,
    stops: Stops | None = None,
) -> Path:
    """Train by a recipe, continuing from the last checkpoint in `out` if there is one.

    `out` becomes a transformers model folder with `streaming.json`. ValueError if data or model do
    not fit the recipe, `out` holds another run, or another process trains there.

    Args:
        make_prefixes: for recipes with `[distillation]`, whose streams are not known to this room:
            `rl.on_policy.train` gives its own.
        stops: asked after each update; a run that is to stop saves a checkpoint, and raises
            KeyboardInterrupt.
    """
    out = Path(out)
    if recipe.distillation and make_prefixes is None:
        raise ValueError(
            "[distillation] streams while it trains: use proactivellm.rl.on_policy.train"
        )
    check_out(recipe, out)
    # What is finished is only read, by any number of processes.
    finished = (out / TRAINING_LOG).exists()
    with nullcontext() if finished else claimed(out):
        _train(recipe, out, make_prefixes, stops or NoStops())
    return out


def _train(recipe: Recipe, out: Path, make_prefixes: MakePrefixes | None, stops: Stops) -> None:
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
    if recipe.distillation and make_prefixes:
        trainer.prefixes = make_prefixes(recipe, trainer, valid)
        trainer.add_callback(Advance(trainer.prefixes))
    in_order = InOrder(stops)
    trainer.add_callback(in_order)
    with stops.noting(ENDING):
        trainer.train(resume_from_checkpoint=checkpoint)
    if in_order.stopped:
        raise KeyboardInterrupt
    weights = whole_weights(trainer.accelerator, trainer.model_wrapped)
    if trainer.is_world_process_zero():
        if weights is not None:
            put_in(trainer.learner, weights)
        save_model(trainer, out, recipe)
    trainer.accelerator.wait_for_everyone()  # so that no process returns to half a model


def save_model(trainer: StreamingTrainer, out: Path, recipe: Recipe) -> None:
    """Write the final model folder and the log of the run."""
    side = (trainer.tokenizer, trainer.settings)
    with saving(out), replacing_in(out) as new:
        dtype = getattr(torch, recipe.output.dtype)
        save_final(trainer.learner, side, new, dtype, not recipe.lora or recipe.lora.merge)
    history = "\n".join(json.dumps(line) for line in trainer.state.log_history)
    write_text(out / TRAINING_LOG, history + "\n")
    log.info("model saved to %s", out)
