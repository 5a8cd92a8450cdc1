"""The folder of a learner: an ordinary model folder, with front end and what objectives keep."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from proactivellm.backbone.folder import refusing
from proactivellm.backbone.prompt import StreamSettings
from proactivellm.backbone.quiet import quiet_transformers
from proactivellm.train.learner import Learner

Side = tuple[PreTrainedTokenizerBase, StreamSettings]  # what a model folder holds beside weights


@contextmanager
def saving(folder: str | Path) -> Iterator[None]:
    """Names the folder that could not be saved (ValueError): libraries have many words for it.

    No bar is drawn inside, of which a small model would have one for each of its saves.
    """
    try:
        with quiet_transformers():
            yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(getattr(error, "strerror", None) or error).strip().splitlines()[0]
        raise ValueError(
            f"{folder} cannot be saved ({reason}); what was saved before is still there: make room "
            "and give the same command again"
        ) from error


def save_checkpoint(
    learner: Learner, side: Side, folder: str | Path, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Writes what a run goes on from: all weights as they are, adapters by themselves.

    `weights` are those of the learner, where its own are parts of them (FSDP).
    """
    model = learner.model
    model.save_pretrained(folder, state_dict=_under("model.", weights), **_alone(model))
    _save_rest(learner, side, Path(folder), torch.float32, weights)


def save_final(
    learner: Learner, side: Side, folder: str | Path, dtype: torch.dtype, merge: bool = True
) -> None:
    """Writes the model of a run, weights rounded; the learner is used up.

    Adapters are merged into the weights, or else written alone, to be put into their model again:
    then without its tokenizer.
    """
    model: Any = learner.model
    if not hasattr(model, "merge_and_unload"):
        _save_rest(learner, side, Path(folder), dtype)
        model.to(dtype).save_pretrained(folder)
    elif merge:
        _save_rest(learner, side, Path(folder), dtype)
        model.merge_and_unload().to(dtype).save_pretrained(folder)
    else:
        _save_rest(learner, side, Path(folder), dtype, tokenizer=False)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
        model.save_pretrained(folder, **_alone(model))
        (Path(folder) / "README.md").unlink(missing_ok=True)  # a form that peft leaves empty
        model.generation_config.save_pretrained(folder)


def _alone(model: Any) -> dict[str, bool]:
    """Keeps peft, which saves adapters, from asking the hub whether the vocabulary has grown."""
    return {"save_embedding_layers": False} if hasattr(model, "merge_and_unload") else {}


def _save_rest(
    learner: Learner,
    side: Side,
    folder: Path,
    dtype: torch.dtype,
    weights: Mapping[str, Tensor] | None = None,
    tokenizer: bool = True,
) -> None:
    words, settings = side
    if tokenizer:
        words.save_pretrained(folder)
    settings.save(folder)
    if learner.front_end is not None:
        learner.front_end.save(folder, dtype, _under("front_end.", weights))
    for name, objective in learner.objectives.items():
        kept = _under(f"objectives.{name}.", weights) or objective.state_dict()
        if kept:
            torch.save(kept, folder / f"{name}.pt")


def load_objectives(learner: Learner, folder: str | Path, required: bool) -> None:
    """Reads what objectives keep, each from the file of its name.

    ValueError if one is missing (and `required`), broken or of another model.
    """
    for name, objective in learner.objectives.items():
        file = Path(folder) / f"{name}.pt"
        if not objective.state_dict() or not (required or file.is_file()):
            continue
        if not file.is_file():
            raise ValueError(f"cannot continue from {folder}: there is no {file.name} in it")
        with refusing(f"{file} does not fit the objective '{name}' of this model"):
            objective.load_state_dict(torch.load(file, weights_only=True))


def _under(prefix: str, weights: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    if weights is None:
        return None
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
