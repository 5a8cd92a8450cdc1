"""What a training step of a recipe costs beside plain fine-tuning of its backbone, on its own data.

    python benchmarks/recipe_cost.py RECIPE.toml [MORE.toml...] [--steps 5]

Prints a Markdown table. Both steps take the same samples in the same batches: forward, backward
and AdamW over what the recipe trains (with [lora], its adapters).

- plain: one causal forward over [source | target], cross-entropy of the target's rows, as any
  fine-tuning has it
- streaming: the objective of the recipe, with all its views in one forward

Tokens are those of sources (with prompt) and targets, each counted once: what a user has to train
on, and not what is computed. Seconds are processor time, all threads together, on the CPU: what
else the machine does hardly changes them. The steps take turns all the same.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from proactivellm.backbone.decoder import Parts
from proactivellm.core.masks import PADDING
from proactivellm.core.packing import IGNORE
from proactivellm.files.toml import load_toml
from proactivellm.tasks.data import read_items
from proactivellm.train.assembly import make_trainer
from proactivellm.train.build import make_backbone, make_settings
from proactivellm.train.recipe import Recipe
from proactivellm.train.samples import PackedDataset
from proactivellm.train.trainer import StreamingTrainer
from proactivellm.train.views import collate

Batch = dict[str, Tensor]


@dataclass
class Cost:
    """What all steps of one kind took."""

    seconds: float = 0.0
    losses: tuple[float, ...] = ()


def make(recipe: Recipe, out: str) -> StreamingTrainer:
    """The trainer of a recipe, which is not evaluated on the way."""
    quiet = recipe.output.model_copy(update={"eval_steps": 0, "patience": 0})
    recipe = recipe.model_copy(update={"output": quiet})
    sources = recipe.data.train if isinstance(recipe.data.train, list) else [recipe.data.train]
    items = [item for source in sources for item in read_items(source)]
    model, tokenizer = make_backbone(recipe, items)
    settings = make_settings(recipe, tokenizer)
    return make_trainer(recipe, Path(out), (items, []), (model, tokenizer, settings))


def batches(trainer: StreamingTrainer, size: int, steps: int) -> Iterator[tuple[Batch, Batch]]:
    """Batches with all views, and the same samples with the full view alone."""
    whole: Any = trainer.train_dataset
    plan = whole.views.model_copy(update={"full": True, "num_partial": 0})
    alone = PackedDataset(whole.items, whole.plan, whole.encoder, plan, whole.layout, whole.seed)
    for start in range(0, min(steps * size, len(whole)), size):
        chosen = range(start, start + size)
        yield collate([whole[i] for i in chosen]), collate([alone[i] for i in chosen])


def plain_loss(model: Any, full: Batch) -> Tensor:
    """Cross-entropy of the target's rows after one causal forward."""
    rows = full["label"] != IGNORE
    hidden = model.get_decoder()(input_ids=full["input_ids"], use_cache=False).last_hidden_state
    return F.cross_entropy(Parts(model).project(hidden[rows]).float(), full["label"][rows])


def timed(cost: Cost, loss_of: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
    """One step, added to what all took."""
    start = time.process_time()
    loss = loss_of()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    cost.seconds += time.process_time() - start
    cost.losses = (*cost.losses, float(loss.detach()))


def measure(recipe: Recipe, steps: int) -> list[dict[str, float | str]]:
    """A row for each kind of step; the first batch warms both up and is not counted."""
    size = recipe.optimisation.batch_size
    costs = {"plain": Cost(), "streaming": Cost()}
    samples = tokens = 0
    with tempfile.TemporaryDirectory() as out:
        trainer = make(recipe, out)
        learner: Any = trainer.learner.train()
        trained = [each for each in learner.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=recipe.optimisation.learning_rate)
        for number, (whole, full) in enumerate(batches(trainer, size, steps + 1)):
            counted = costs if number else {name: Cost() for name in costs}
            timed(counted["plain"], lambda full=full: plain_loss(learner.model, full), optimizer)
            timed(counted["streaming"], lambda whole=whole: learner(**whole)["loss"], optimizer)
            samples += size * bool(number)
            tokens += int((full["view"] != PADDING).sum()) * bool(number)
    return [
        {
            "step": name,
            "s/step": cost.seconds * size / samples,
            "s/sample": cost.seconds / samples,
            "tokens/s": tokens / cost.seconds,
            "speed": costs["plain"].seconds / cost.seconds,
        }
        for name, cost in costs.items()
    ]


def main() -> None:
    """Prints the table of a recipe."""
    parser = argparse.ArgumentParser(description="Cost of a recipe's training step.")
    parser.add_argument("recipes", nargs="+", type=Path, help="as `proactivellm train` takes them")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each kind")
    arguments = parser.parse_args()
    recipe = load_toml(arguments.recipes[0], Recipe, arguments.recipes[1:])
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} thread(s)\n")
    rows = measure(recipe, arguments.steps)
    print("|", " | ".join(rows[0]), "|")
    print("|---|" + "---:|" * (len(rows[0]) - 1))
    for row in rows:
        cells = [f"{cell:.3g}" if isinstance(cell, float) else cell for cell in row.values()]
        print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
