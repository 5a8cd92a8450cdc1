"""Checkpoints of a training: the one to go on from, and all that it holds of a learner."""

import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.trainer_callback import TrainerState

from proactivellm.backbone.folder import NO_KERNEL, broken_weights, refusing
from proactivellm.backbone.weights import check_all_loaded
from proactivellm.train.learner import Learner
from proactivellm.train.saving import load_objectives


def last_checkpoint(folder: Path) -> str | None:
    """The path of the newest checkpoint that was written to the end, or None.

    A run killed while it saves leaves a folder without `trainer_state.json`, which the Trainer
    writes last, or with a part of it.
    """
    steps = {}
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        try:
            steps[TrainerState.load_from_json(str(state)).global_step] = str(state.parent)
        except (json.JSONDecodeError, TypeError):
            continue
    return steps[max(steps)] if steps else None


def load_checkpoint(learner: Learner, folder: str) -> None:
    """Load what `saving.save_checkpoint` wrote; ValueError if it is broken or does not fit."""
    load_weights(learner.model, folder)
    if learner.front_end is not None and not _is_part(learner.front_end, learner.model):
        width = learner.model.config.get_text_config().hidden_size
        stored = type(learner.front_end).load(Path(folder), width, "cpu")
        with refusing(f"cannot continue from {folder}"):
            learner.front_end.load_state_dict(stored.state_dict())
    load_objectives(learner, folder, required=True)


def _is_part(front_end: nn.Module, model: PreTrainedModel) -> bool:
    """Whether all its weights are those of the model, and loaded with them."""
    own = {id(weight) for weight in model.parameters()}
    return own.issuperset(map(id, front_end.parameters()))


def load_weights(model: PreTrainedModel, folder: str) -> None:
    """Load a checkpoint's weights (or adapters) into a model of the same shape, else ValueError."""
    what = f"cannot continue from {folder}"
    with refusing(what, lambda: broken_weights(Path(folder))):
        found = _load_weights(model, folder)
    check_all_loaded(found, what)


def _load_weights(model: PreTrainedModel, folder: str) -> dict[str, Any]:
    """Returns the names that are missing, unexpected or of another shape."""
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict, set_peft_model_state_dict
        from peft.utils import load_peft_weights

        weights = load_peft_weights(folder)
        wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
        result = set_peft_model_state_dict(model, weights)
        return {
            "missing_keys": wanted.keys() - weights.keys(),
            "unexpected_keys": result.unexpected_keys,
            "mismatched_keys": (),  # those are raised
        }
    stored, info = type(model).from_pretrained(
        folder,
        dtype=model.dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **NO_KERNEL,
    )
    if not info["mismatched_keys"]:
        model.load_state_dict(stored.state_dict())
    return info
