"""The command `train`: a model by a recipe."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from proactivellm.cli.app import app
from proactivellm.cli.stopping import Stops, end_interrupted

Recipes = Annotated[
    list[Path],
    typer.Argument(
        metavar="RECIPE...",
        help="TOML file: which model, which data, how. Further ones are laid over it, key by key.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the checkpoints and the model.")]


@app.command()
def train(context: typer.Context, recipes: Recipes, out: Out) -> None:
    """Train a model by a recipe.

    The same command continues a run that was interrupted, from its last checkpoint. Ctrl-C and
    SIGTERM save one first, after the update that the run is at.

    Example:
        proactivellm train recipes/tatoeba-de-en.toml --out my-model
        proactivellm train recipes/tasks/squad.toml recipes/backbones/qwen3-0.6b.toml --out reader
    """
    from proactivellm.files.toml import load_toml
    from proactivellm.train.recipe import Recipe

    wish = load_toml(recipes[0], Recipe, recipes[1:])
    check_train_extra(needs_peft=wish.lora is not None)
    from proactivellm.rl.on_policy import train as run

    try:
        run(wish, out, context.obj or Stops())
    except KeyboardInterrupt:
        end_interrupted(f"checkpoints stay in {out}; the same command continues from the last one")
    typer.echo(f"model saved in {out}")


def check_train_extra(needs_peft: bool) -> None:
    """Checks that what training needs is installed; `needs_peft` if adapters are trained.

    Raises:
        ValueError: names what is missing, and the extra that brings it.
    """
    wanted = ["accelerate"] + ["peft"] * needs_peft
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"training needs {' and '.join(missing)}, which the extra `train` brings: "
            "pip install 'proactivellm[train]'"
        )
