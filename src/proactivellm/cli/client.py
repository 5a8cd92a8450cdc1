"""The command `client`: a text goes to a server while its target comes back."""

import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from proactivellm.cli.app import app
from proactivellm.cli.stream_flags import Depth, Thoughts
from proactivellm.cli.thought_lines import ThoughtLines
from proactivellm.output.printable import in_one_line, write_out
from proactivellm.output.source_units import pieces_of

if TYPE_CHECKING:
    from proactivellm.cli.live_lines import LiveLine
    from proactivellm.client import Client


@app.command()
def client(
    url: Annotated[
        str, typer.Option(metavar="URL", help="Of the server; https for one with a certificate.")
    ] = "http://127.0.0.1:8000",
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One that it serves.", show_default="the first"),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", help="A policy, as of `stream`.", show_default="that of the model"
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="If the server asks for one; others can read what a command line says.",
            envvar="PROACTIVELLM_API_KEY",
            show_default="none",
        ),
    ] = None,
    source: Annotated[
        str, typer.Option("--input", metavar="FILE|-", help="Text, one source a line.")
    ] = "-",
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="WPM",
            min=0.001,
            help="Words a minute, as if somebody spoke them.",
            show_default="as they come",
        ),
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="A question that the model reads before each text.",
            rich_help_panel="Models that think",
        ),
    ] = None,
    thoughts: Thoughts = False,
    depth: Depth = None,
) -> None:
    """Stream text to a server (`proactivellm serve`); print what it writes while the text arrives.

    Example:
        proactivellm client --policy wait-k:3 --input source.txt
    """
    import asyncio

    try:
        from proactivellm.client import Client
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the client needs {error.name}, which the extra `serve` brings: "
            "pip install 'proactivellm[serve]'"
        ) from None
    from proactivellm.cli.live_lines import live_lines

    lines = live_lines(source)
    live = Client(url, model=model, policy=policy, key=api_key, question=question, depth=depth)
    asyncio.run(_talk(live, lines, rate, ThoughtLines() if thoughts else None))


async def _talk(
    client: "Client",
    lines: Iterator["LiveLine"],
    rate: float | None,
    thoughts: ThoughtLines | None,
) -> None:
    import asyncio

    async with client:
        while (line := await asyncio.to_thread(next, lines, None)) is not None:
            wrote = False
            async for delta in client.stream(_pieces(line, rate), thoughts is not None):
                if delta.thought is None:
                    write_out(in_one_line(delta.text))
                    wrote = True
                elif thoughts is not None:
                    thoughts.add(delta.text)
                    if delta.closes:
                        thoughts.end(delta.thought, delta.source_units, delta.elapsed_ms / 1000)
            if wrote:
                write_out("\n")


async def _pieces(line: "LiveLine", rate: float | None) -> AsyncIterator[str]:
    """What arrives of a line, or its words at a pace."""
    import asyncio

    if rate is None:
        while (piece := await asyncio.to_thread(next, line.arriving, None)) is not None:
            yield piece
        return
    pieces = pieces_of(await asyncio.to_thread("".join, line.arriving))
    began_s = time.monotonic()
    for i, piece in enumerate(pieces):
        await asyncio.sleep(max(0.0, began_s + 60 * i / rate - time.monotonic()))
        yield piece
