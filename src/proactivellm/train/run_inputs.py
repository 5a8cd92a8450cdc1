"""Hashes of everything that a training run depends on, kept in its folder as `training.json`.

Another recipe, other data or another backbone at the same path is another run.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from math import prod
from pathlib import Path
from typing import Any

import torch
import transformers
from pydantic import BaseModel

from proactivellm import __version__
from proactivellm.backbone.hub import find_folder
from proactivellm.files.digest import digest_model, digest_text
from proactivellm.files.lock import locked
from proactivellm.files.note import check_note, read_note
from proactivellm.modality.media_digest import digest_media
from proactivellm.tasks.item import Item
from proactivellm.tasks.reasoning.problem import line_of
from proactivellm.train.objectives.teaching import SELF
from proactivellm.train.recipe import Recipe

RUN_FILE = "training.json"
_SHARES = ("batch_size", "gradient_accumulation")  # with the processes: samples of an update
# What only says how often to look and to save, whom to tell, when to give up, where things lie
# (contents are compared), and who prepares batches.
_FREE = {
    "output": {"save_steps", "keep", "log_steps", "report_to", "patience", "patience_schedule"},
    "data": {"train", "valid", "workers"},
}


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder (ValueError); the first process of a run holds it."""
    alone = int(os.environ.get("RANK", "0")) == 0
    with locked(out) if alone else nullcontext():
        yield


def check_out(recipe: Recipe, out: Path) -> None:
    """Refuse (ValueError) to save a model over one that it is made from."""
    teaching, front_end = recipe.distillation, recipe.front_end
    start = recipe.lora and recipe.lora.start
    others = (front_end and front_end.pretrained, teaching and teaching.teacher, start)
    for name in (recipe.backbone.pretrained, *others):
        if name and name != SELF and find_folder(name).resolve() == out.resolve():
            raise ValueError(f"--out {out} would overwrite {name}, which the recipe reads")


def check_run(
    recipe: Recipe, items: tuple[Sequence[Item], Sequence[Item]], out: Path, continues: bool
) -> None:
    """Note what a run depends on, or compare it with what was noted when the run began.

    The samples of an update may be shared out among processes and accumulation in another way. The
    files that items (of training, of validation) name are read. ValueError if the run that
    `continues` is of another recipe, other data or another backbone, or nobody knows.
    """
    free: Any = _FREE
    inputs: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json", exclude=free),
        "train_data": _digest(items[0], recipe.thinking is not None),
        "valid_data": _digest(items[1], recipe.thinking is not None),
        "backbone": _folder(recipe.backbone.pretrained),
        "front_end": _folder(recipe.front_end.pretrained if recipe.front_end else None),
        # Which samples make an update depends on it, and on two keys of the recipe.
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }
    if recipe.lora and recipe.lora.start:
        inputs["adapter"] = _folder(recipe.lora.start)
    if recipe.distillation:
        teacher = recipe.distillation.teacher
        inputs["teacher"] = None if teacher == SELF else _folder(teacher)
    if continues:
        noted = read_note(out / RUN_FILE)
        _share_as_noted(inputs, noted)
        if isinstance(noted.get("recipe"), dict):
            _leave_out_new_keys(inputs["recipe"], noted["recipe"], recipe)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    if not continues:
        inputs["made_with"] = {"proactivellm": __version__, **versions}
    if int(os.environ.get("RANK", "0")) == 0 or continues:
        check_note(out / RUN_FILE, inputs, continues)


def _leave_out_new_keys(inputs: dict[str, Any], noted: Mapping[str, Any], table: BaseModel) -> None:
    """Drop what the release that began a run did not know of, and the recipe does not ask for.

    So the default of a key that is added has to be what was done before.
    """
    for name, value in [*inputs.items()]:
        field, now = type(table).model_fields[name], getattr(table, name)
        if name not in noted:
            if now == field.get_default(call_default_factory=True):
                del inputs[name]
        elif isinstance(now, BaseModel) and isinstance(noted[name], dict):
            _leave_out_new_keys(value, noted[name], now)


def _share_as_noted(inputs: dict[str, Any], noted: dict[str, Any]) -> None:
    """An update that is shared out in another way, but has as many samples, is the same run."""
    if _samples(inputs) == _samples(noted):
        inputs["processes"] = noted["processes"]
        for key in _SHARES:
            inputs["recipe"]["optimisation"][key] = noted["recipe"]["optimisation"][key]


def _samples(inputs: dict[str, Any]) -> int | None:
    """Samples of an update; None where they were not noted."""
    try:
        sizes = [inputs["recipe"]["optimisation"][key] for key in _SHARES]
        return prod([inputs["processes"], *sizes])
    except (KeyError, TypeError):
        return None


def _digest(items: Sequence[Item], thinks: bool) -> str:
    media = digest_media(item.media for item in items)
    texts = (
        [i.source, i.target, *i.answers, each, *map(str, i.delays), *_problem(i, thinks)]
        for i, each in zip(items, media, strict=True)
    )
    return digest_text(digest_text(each) for each in texts)


def _problem(item: Item, thinks: bool) -> list[str]:
    """What a model that thinks learns of an item: which thought follows which sentence."""
    return [line_of(item.problem)] if thinks and item.problem else []


def _folder(name: str | None) -> str | None:
    return None if name is None else digest_model(find_folder(name))
