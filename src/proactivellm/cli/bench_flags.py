"""Flags of the command `bench`."""

from pathlib import Path
from typing import Annotated

import typer

from proactivellm.backbone.bundled import DEFAULT_MODEL
from proactivellm.cli.flags import MOST

Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH|SHAPE",
        help="A bundled model, a model folder or a Hugging Face hub id. Or one with random "
        "weights: a config.json, a folder that holds only that, or a shape (shape:6x256, "
        "shape:qwen3-0.6b, shape:qwen2.5-3b, shape:qwen3-8b; with video shape:4x128-vl, "
        "shape:qwen2.5-vl-3b).",
        show_default=f"the bundled {DEFAULT_MODEL}",
    ),
]
Suites = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SUITE",
        help="What to measure. alone: one stream against three baselines. sessions: many streams "
        "against one. window: an endless stream, young and old. capacity: how many live sessions "
        "meet a deadline. serve: the same over the network, of a server that is started for it. "
        "video: clips through a vision-language model, stage by stage.",
        show_default="all but serve and video",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for bench.json and bench.png.")]
Accelerate = Annotated[
    str,
    typer.Option(
        metavar="none|graph|compile",
        help="On a GPU, run steps as CUDA graphs (graph), or compile them as well (compile).",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, max=1024, metavar="N", help="Threads of torch.", show_default="torch's choice"
    ),
]
Sessions = Annotated[
    str,
    typer.Option(
        metavar="N,...",
        help="Numbers of streams at once; ratios are against the first. For the suite sessions.",
    ),
]
SourceUnits = Annotated[
    int, typer.Option(max=MOST, metavar="UNITS", help="Length of a source; a unit is one token.")
]
TargetTokens = Annotated[
    int, typer.Option(max=MOST, metavar="TOKENS", help="Tokens that are written for a source.")
]
WaitK = Annotated[
    int, typer.Option("--k", max=MOST, metavar="UNITS", help="Units read before the first token.")
]
Long = Annotated[
    int,
    typer.Option(
        max=MOST,
        metavar="N",
        help="Units, and tokens, of the source on which encoding the prefix anew for each token is "
        "measured; 0 leaves it out.",
    ),
]
Repeats = Annotated[
    int,
    typer.Option(max=MOST, metavar="N", help="How often each comparison is measured, in turn."),
]
Steps = Annotated[
    int,
    typer.Option(
        max=MOST,
        metavar="N",
        help="Steps per number of streams and repeat. For the suite sessions.",
    ),
]
WindowSize = Annotated[
    int,
    typer.Option(
        "--window", max=MOST, metavar="TOKENS", help="Tokens in view. For the suite window."
    ),
]
Units = Annotated[
    str,
    typer.Option(
        metavar="N,N",
        help="Units read by the young stream and by the old one. For the suite window.",
    ),
]
Deadline = Annotated[
    float,
    typer.Option(
        metavar="MS",
        help="Milliseconds from a unit to its token. For the suites capacity and serve.",
    ),
]
UnitMs = Annotated[
    float,
    typer.Option(
        metavar="MS",
        help="Milliseconds between units of a session. For the suites capacity and serve (there: "
        "of text).",
    ),
]
Seconds = Annotated[
    float,
    typer.Option(
        metavar="S",
        help="Seconds measured per number of sessions. For the suites capacity and serve.",
    ),
]
MaxSessions = Annotated[
    int,
    typer.Option(
        max=MOST,
        metavar="N",
        help="The most sessions that are tried. For the suites capacity and serve.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=2**63 - 1, metavar="N", help="Seed of the sources and of random weights."
    ),
]

Clips = Annotated[
    list[str] | None,
    typer.Option(
        "--clip",
        metavar="FILE",
        help="A video, or several by repeating the flag. For the suite video.",
        show_default="none",
    ),
]
Loop = Annotated[
    str | None,
    typer.Option(
        metavar="SECONDS,...",
        help="Show each clip again and again, as one video of so many seconds, read as fast as "
        "can be; of several lengths one after the other. For the suite video.",
        show_default="once",
    ),
]
