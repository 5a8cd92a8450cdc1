"""The command `client`: a text, recording or video goes to a server while its target comes back."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from proactivellm.cli.app import app
from proactivellm.cli.client_media import Piece, pictures, played, sound
from proactivellm.cli.stream_flags import AskAt, Depth, RealTime, Thoughts
from proactivellm.cli.thought_lines import ThoughtLines
from proactivellm.modality.kinds import KINDS, kind_of_file
from proactivellm.output.printable import in_one_line, write_out
from proactivellm.output.source_units import pieces_of

if TYPE_CHECKING:
    from proactivellm.cli.live_lines import LiveLine
    from proactivellm.client import Client, Delta, SpeechClient, VideoClient


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
        str,
        typer.Option(
            "--input",
            metavar="FILE|-",
            help="Text, one source a line; or a recording; or a video, folder of pictures or "
            "camera, which is sent as JPEG pictures.",
        ),
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
            help="A question that the model reads before each text, if it thinks, or video.",
            rich_help_panel="Models that think, and video",
        ),
    ] = None,
    ask_at: AskAt = None,
    thoughts: Thoughts = False,
    depth: Depth = None,
    real_time: RealTime = False,
) -> None:
    """Stream to a server (`proactivellm serve`); print what it writes while the source arrives.

    Example:
        proactivellm client --policy wait-k:3 --input source.txt
    """
    import asyncio

    try:
        from proactivellm.client import Client, SpeechClient, VideoClient
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the client needs {error.name}, which the extra `serve` brings: "
            "pip install 'proactivellm[serve]'"
        ) from None
    kind = kind_of_file(source)
    _check(
        kind,
        {"--rate": rate, "--question": question, "--ask-at": ask_at, "--thoughts": thoughts or None}
        | {"--depth": depth, "--real-time": real_time or None},
    )
    if kind is not None:
        KINDS[kind].check(source)
    told = ThoughtLines() if thoughts else None
    where = {"model": model, "policy": policy, "key": api_key}
    if kind == "speech":
        samples_per_s, pieces = sound(source)
        hears = SpeechClient(url, rate=samples_per_s, **where)
        asyncio.run(_listen(hears, pieces, real_time))
    elif kind == "video":
        before = (question or "") if ask_at is None else None
        watches = VideoClient(url, question=before, depth=depth, **where)
        film = _Film(source, question or "", ask_at, real_time)
        asyncio.run(_watch(watches, film, told))
    else:
        from proactivellm.cli.live_lines import live_lines

        reads = Client(url, question=question, depth=depth, **where)
        asyncio.run(_talk(reads, live_lines(source), rate, told))


class _Film(NamedTuple):
    """A video, what is asked of it, and when; None = before it."""

    name: str
    question: str
    ask_at_s: float | None
    real_time: bool


def _check(kind: str | None, flags: Mapping[str, object]) -> None:
    """ValueError if a flag was given that is not for such a source."""
    of_kind: dict[str | None, tuple[str, ...]] = {
        None: ("--rate", "--question", "--thoughts", "--depth"),
        "speech": ("--real-time",),
        "video": ("--question", "--ask-at", "--thoughts", "--depth", "--real-time"),
    }
    for flag, value in flags.items():
        if value is not None and flag not in of_kind[kind]:
            what = {None: "text", "speech": "a recording"}.get(kind, "a video")
            raise ValueError(f"{flag} is not for {what}: leave it out")
    if flags["--ask-at"] is not None and not flags["--question"]:
        raise ValueError("--ask-at says when a question is asked: give one with --question")


async def _talk(
    client: "Client", lines: Iterator["LiveLine"], rate: float | None, thoughts: ThoughtLines | None
) -> None:
    import asyncio

    async with client:
        while (line := await asyncio.to_thread(next, lines, None)) is not None:
            await _tell(client.stream(_pieces(line, rate), thoughts is not None), thoughts)


async def _listen(client: "SpeechClient", pieces: Iterator[Piece], real_time: bool) -> None:
    async with client:
        await _tell(client.stream(played(pieces, real_time)))  # type: ignore[arg-type]


async def _watch(client: "VideoClient", film: _Film, thoughts: ThoughtLines | None) -> None:
    async with client:
        fps = client.session["proactivellm"].get("frames_per_s")
        if fps is None:
            raise ValueError(f"{client.session['model']} watches no video: name one with --model")
        shown = pictures(film.name, fps, film.question, film.ask_at_s)
        sent = played(shown, film.real_time)
        await _tell(client.stream(sent, thoughts is not None), thoughts)


async def _tell(deltas: AsyncIterator["Delta"], thoughts: ThoughtLines | None = None) -> None:
    """What is written of one source, as it is written; a line."""
    wrote = False
    async for delta in deltas:
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
