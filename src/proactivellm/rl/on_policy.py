"""Training at prefixes that are written on the engine: by the student as it is, or by its teacher.

A window of some updates is written at once, many streams in one forward, by the weights at its
beginning. What a sample becomes is a function of these weights, the seed and its place in the plan.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from proactivellm.backbone.folder import refusing
from proactivellm.files.replace import write_text
from proactivellm.rl.author import Author
from proactivellm.rl.curriculum import Climb, Curriculum, Verdict
from proactivellm.rl.plan import trainable
from proactivellm.tasks.item import Item
from proactivellm.train import run
from proactivellm.train.objectives.teaching import SELF
from proactivellm.train.prefixes import Prefix, as_batch, prefixed
from proactivellm.train.recipe import Recipe
from proactivellm.train.stopping import Stops
from proactivellm.train.teacher import GatheredTeacher, load_teacher
from proactivellm.train.trainer import StreamingTrainer

PREFIX_FILE = "prefixes.json"  # in a checkpoint: what is left of a window, and of the curriculum
STABLE_FILE = "stable.pt"  # weights at the last length that was passed

log = logging.getLogger(__name__)


def train(recipe: Recipe, out: str | Path, stops: Stops | None = None) -> Path:
    """Train by a recipe, continuing from the last checkpoint in `out` if there is one.

    `out` becomes a transformers model folder with `streaming.json`. ValueError if data or model do
    not fit the recipe, `out` holds another run, or another process trains there.
    """
    return run.train(recipe, out, OnPolicy, stops)


class OnPolicy:
    """The prefixes of a run, window by window; a `train.prefixes.Prefixes`.

    Args:
        held_out: items whose rollouts a curriculum looks at.

    Raises:
        ValueError: several processes train, or teacher or policy do not fit the student.
    """

    def __init__(
        self, recipe: Recipe, trainer: StreamingTrainer, held_out: Sequence[Item] = ()
    ) -> None:
        assert recipe.distillation is not None
        if trainer.args.world_size > 1:
            raise ValueError("[distillation] trains in one process: start it without accelerate")
        self.settings, self.trainer = recipe.distillation, trainer
        optimisation = recipe.optimisation
        self.size = optimisation.batch_size * optimisation.gradient_accumulation
        self.judge: GatheredTeacher | None = None
        if self.settings.teacher != SELF:
            device, read = trainer.args.device, trainer.settings.read_token
            teacher = load_teacher(self.settings, trainer.tokenizer, device, read)
            vocabulary = trainer.learner.model.config.get_text_config().vocab_size
            mib = recipe.objective.logits_mib
            self.judge = GatheredTeacher(teacher, self.settings, vocabulary, mib)
        other = self.judge.model if self.judge else None
        self.author = Author(trainer, self.settings, other, recipe.backbone.pretrained)
        self.window: dict[int, list[Prefix]] = {}
        ladder = self.settings.rollouts.curriculum
        self.climb: Climb | None = None
        if ladder is not None:
            gate = ladder.model_dump(include={"lengths", "steps", "least_entropy"})
            self.climb = Climb(Curriculum(**gate), lambda: trainable(trainer.learner))
        self.held_out = [(i, [item]) for i, item in enumerate(held_out)]
        self.held_out = self.held_out[: ladder.held_out if ladder else 0]

    @property
    def max_tokens(self) -> int:
        """Of a rollout now."""
        longest = self.settings.rollouts.max_tokens
        return self.climb.curriculum.length if self.climb else longest

    def extend(self, batches: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """See `Prefixes`; at the beginning of a window, all of it is written first."""
        places = [batch["index"].tolist() for batch in batches]
        flat = [place for each in places for place in each]
        if any(place not in self.window for place in flat):
            self._write(flat)
        extended = []
        for batch, each in zip(batches, places, strict=True):
            tensors = self._tensors([one for place in each for one in self.window[place]])
            device = batch["index"].device
            extended.append({**batch, **{name: t.to(device) for name, t in tensors.items()}})
        return extended

    def advance(self) -> bool:
        """See `Prefixes`; what a curriculum says after the update is done here."""
        if self.climb is None:
            return False
        verdict = self.climb.advance(lambda length: self.author.entropy(self.held_out, length))
        if verdict == Verdict.PROMOTE:
            self.window = {}
        return verdict == Verdict.STOP

    def save(self, folder: str) -> None:
        """See `Prefixes`."""
        state = {place: [asdict(one) for one in each] for place, each in self.window.items()}
        where = self.climb.place if self.climb else None
        write_text(Path(folder) / PREFIX_FILE, json.dumps({"window": state, "curriculum": where}))
        if self.climb:
            torch.save(self.climb.stable, Path(folder) / STABLE_FILE)

    def load(self, folder: str) -> None:
        """See `Prefixes`."""
        file = Path(folder) / PREFIX_FILE
        with refusing(f"cannot continue from {file}"):
            state = json.loads(file.read_text(encoding="utf-8"))
            self.window = {
                int(place): [Prefix(**one) for one in each]
                for place, each in state["window"].items()
            }
            if self.climb:
                stable = torch.load(Path(folder) / STABLE_FILE, weights_only=True)
                self.climb.go_on(state["curriculum"], stable)

    def _write(self, places: Sequence[int]) -> None:
        """Write the window that begins with the update of these samples."""
        dataset = self.trainer.train_dataset
        ahead = [
            place + update * self.size
            for update in range(self.settings.rollouts.every)
            for place in places
        ]
        texts = [
            (place, [dataset.items[i] for i in dataset.plan[place]])  # type: ignore[union-attr]
            for place in ahead
            if place < len(dataset)  # type: ignore[arg-type]
        ]
        self.window = self.author.write(texts, self.max_tokens)

    def _tensors(self, prefixes: Sequence[Prefix]) -> dict[str, Tensor]:
        """What can be learnt from, and never nothing, so that every micro-batch has a loss."""
        some = [one for one in prefixes if any(one.counted)] or prefixes[:1]
        student = self.author.student
        tensors = as_batch(some, student.prompt, student.layout, self.settings.packs_full)
        if self.judge is not None:
            tensors |= prefixed(self.judge.judge(some))
        return tensors
