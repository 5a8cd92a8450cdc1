"""A recipe in the words of transformers' TrainingArguments."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import TrainingArguments

from proactivellm.backbone.precision import computes_in_bf16
from proactivellm.train.recipe import Recipe


def trains_in_bf16(recipe: Recipe) -> bool:
    """Whether forward and backward passes are in bf16; otherwise they are in fp32."""
    precision = recipe.optimisation.precision
    if precision != "auto":
        return precision == "bf16"
    return computes_in_bf16("cuda" if torch.cuda.is_available() else "cpu")


def make_arguments(recipe: Recipe, folder: str | Path) -> TrainingArguments:
    """The arguments of a run: samples in their planned order.

    ValueError if what it is to report to is not installed.
    """
    optimisation, output = recipe.optimisation, recipe.output
    _check_reports(output.report_to)
    evaluates = bool(output.eval_steps and recipe.data.valid)
    arguments = TrainingArguments(
        output_dir=str(folder),
        train_sampling_strategy="sequential",
        num_train_epochs=1,
        report_to=list(output.report_to),
        trackio_space_id=None,  # on this machine, and not on the hub
        remove_unused_columns=False,
        label_names=["label"],
        save_strategy="steps",
        per_device_train_batch_size=optimisation.batch_size,
        gradient_accumulation_steps=optimisation.gradient_accumulation,
        learning_rate=optimisation.learning_rate,
        lr_scheduler_type=optimisation.schedule,
        warmup_steps=optimisation.warmup_steps,
        weight_decay=optimisation.weight_decay,
        adam_beta1=optimisation.betas[0],
        adam_beta2=optimisation.betas[1],
        max_grad_norm=optimisation.max_grad_norm,
        bf16=trains_in_bf16(recipe),
        seed=optimisation.seed,
        dataloader_num_workers=recipe.data.workers,
        save_steps=output.save_steps,
        save_total_limit=output.keep,
        logging_steps=output.log_steps,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=output.eval_steps or None,
        use_cpu=not torch.cuda.is_available(),
    )
    # With more devices the Trainer would cut each batch among threads, which these batches, with
    # tensors of different first dimensions, do not survive: there, start a process for each.
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    # transformers 5.17 sends the second of several CPU processes to "cpu:0", where torch can load
    # no optimiser state: such a run could not be continued.
    if arguments.device.type == "cpu":
        arguments.__dict__["_setup_devices"] = torch.device("cpu")
    return arguments


def _check_reports(names: Iterable[str]) -> None:
    for name in names:
        packages = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(importlib.util.find_spec(package) for package in packages):
            raise ValueError(
                f"output.report_to names {name}, which is not installed: pip install {name}"
            )
