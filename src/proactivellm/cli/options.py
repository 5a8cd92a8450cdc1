"""The flags that commands share, with their help."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from proactivellm.session.window import Window

Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help="A bundled model, a Hugging Face folder or a hub id.",
        show_default="the bundled German-English one; of recordings, speech-en",
    ),
]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Of the weights: auto, float32, bfloat16 or float16; auto is float32 on a cpu, "
        "elsewhere that of the file (bfloat16 with int8).",
    ),
]
Quantization = Annotated[
    str,
    typer.Option(
        metavar="none|int8",
        help="int8 keeps the weights of linear layers in 8 bits; it needs the extra quant.",
    ),
]
Source = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Sources, one a line; for qa also a .json in SQuAD format. Of speech: a manifest "
        "(.jsonl, with the texts), a list of recordings, one a line, or a recording.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="References, line by line.",
        show_default="those of a .json or .jsonl source",
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="translation|qa|asr",
        help="What is scored: BLEU; F1 and EM; or WER and CER.",
        show_default="asr for recordings, else translation",
    ),
]
Lanes = Annotated[int, typer.Option(min=1, help="Streams advanced by one forward.")]
Rate = Annotated[
    float | None,
    typer.Option(metavar="WPM", help="Words per minute at which the source arrives, of text."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="FILE|-|mic",
        help="Sources, one a line; - is standard input. Repeat it to stream several at once. Or a "
        "recording (wav, flac, ogg, opus, mp3, or archive.zip:member), several of them one after "
        "another, or mic, the microphone.",
        show_default="-",
    ),
]
Pcm = Annotated[
    str | None,
    typer.Option(
        metavar="s16le|f32le",
        help="Standard input holds raw samples, not text.",
        rich_help_panel="Recordings",
    ),
]
PcmRate = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="HZ",
        help="Of raw samples, or of the microphone.",
        show_default="16000",
        rich_help_panel="Recordings",
    ),
]
PcmChannels = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Of raw samples, or of the microphone; averaged.",
        show_default="1",
        rich_help_panel="Recordings",
    ),
]
RealTime = Annotated[
    bool,
    typer.Option(
        "--real-time",
        help="Hold recordings back to real time; otherwise they go as fast as they can.",
        rich_help_panel="Recordings",
    ),
]
NoGate = Annotated[
    bool,
    typer.Option(
        "--no-gate",
        help="Listen to silence too; otherwise a gate lets only speech through.",
        rich_help_panel="Recordings",
    ),
]
Question = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Read before a recording.", rich_help_panel="Recordings"),
]
Times = Annotated[
    bool,
    typer.Option(
        "--times",
        help="In a pipe: a line for each word, the second it was written in, a tab, the word.",
        rich_help_panel="Recordings",
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="The first N only.", show_default="all")
]
OnePolicy = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="When to READ and when to WRITE, see below.",
        show_default="entropy:laal=3 if the model is calibrated, else wait-k:3; "
        "of recordings, wait-k:2,stride=2",
    ),
]
Policies = Annotated[
    list[str], typer.Option(metavar="SPEC", help="A policy, see below; repeat it for more.")
]
Log = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Instance log to write (JSON lines).")
]
View = Annotated[
    int | None,
    typer.Option(
        min=2,
        metavar="TOKENS",
        help="Keep so many source and so many target tokens in view; older ones are dropped.",
        show_default="all",
    ),
]
Sinks = Annotated[
    int, typer.Option(min=0, help="First units and target tokens that stay in the window for good.")
]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="Sample at this temperature; 0 is greedy.",
        show_default="the model's generation settings",
    ),
]


def make_window(tokens: int | None, sinks: int) -> "Window | None":
    """The window that --window and --sinks ask for.

    Args:
        tokens: of the source and of the target that stay in view; None = all.
        sinks: first units and target tokens that stay for good.

    Returns:
        The window, or None.

    Raises:
        ValueError: there is no window for the sinks to be in, or no room in it.
    """
    from proactivellm.session.window import Window

    if sinks and tokens is None:
        raise ValueError(f"--sinks {sinks}: there is no window; give one with --window")
    return None if tokens is None else Window(source=tokens, target=tokens, sinks=sinks)
