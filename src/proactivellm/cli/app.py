"""The program that the commands belong to; each of them is a file beside this one.

Everything heavy is imported inside the commands, so that --help is quick.
"""

from typing import Annotated

import typer

from proactivellm import __version__
from proactivellm.cli.models import quiet_imports

app = typer.Typer(
    help="Language models that write while they still read.\n\n"
    'Example: echo "Ich habe gestern einen alten Freund getroffen." | proactivellm stream',
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"proactivellm {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options before the command."""
    context.with_resource(quiet_imports())
