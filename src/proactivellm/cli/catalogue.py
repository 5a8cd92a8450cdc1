"""The command `models`: which models are here, and which can be had."""

from typing import Annotated

import typer

from proactivellm.cli.app import app

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")]


@app.command()
def models(as_json: AsJson = False) -> None:
    """List models: bundled ones, those in your caches, and known ones that can be pulled.

    Each name can be given as --model. One that is marked `packages` has to be pulled first; one
    that is marked `hub` is fetched when it is first used. One with a base is an adapter, which
    needs that model here, too.

    Example:
        proactivellm models
    """
    import json

    from proactivellm.backbone.catalogue import Entry, catalogue

    entries = catalogue()
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(entry._asdict()))
        return
    rows = [Entry._fields, *entries]
    widths = [max(len(row[column]) for row in rows) for column in range(len(Entry._fields))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        typer.echo("  ".join(cells).rstrip())
