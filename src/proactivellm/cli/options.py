"""The flags that commands share, with their help."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proactivellm.cli.completion import complete_model, complete_policy

if TYPE_CHECKING:
    from proactivellm.metrics.counting import Counting
    from proactivellm.session.window import Window

MOST = 1_000_000_000  # of whole numbers, so that sums and products of them fit into 64 bits

Model = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete_model,
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
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run code that the model brings, with all your rights; otherwise a model that needs "
        "its own code is refused.",
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
BleuTokenize = Annotated[
    str,
    typer.Option(
        "--bleu-tokenize",
        metavar="NAME",
        help="Tokens of BLEU, as sacrebleu names them: 13a, zh, ja-mecab, ko-mecab, flores200, "
        "char, intl, ...; auto is chosen by the script of the references.",
    ),
]
LatencyUnit = Annotated[
    str,
    typer.Option(
        "--latency-unit",
        metavar="word|char|spm:FILE",
        help="What lags count in the target: words, characters, or pieces of a SentencePiece "
        "model; auto is chosen by the script of the references.",
    ),
]
Lanes = Annotated[int, typer.Option(min=1, max=100_000, help="Streams advanced by one forward.")]
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
        metavar="s16le|f32le|...",
        help="Standard input holds raw samples (also u8, s24le, s32le, f64le), not text; or WAV, "
        "which is read by its header.",
        rich_help_panel="Recordings",
    ),
]
PcmRate = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST,
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
        max=1024,
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
        autocompletion=complete_policy,
        metavar="SPEC",
        help="When to READ and when to WRITE, see below.",
        show_default="that of the model's calibration table; if it names none, entropy:laal=3; "
        "without a table, wait-k:3; of recordings, wait-k:2,stride=2",
    ),
]
Policies = Annotated[
    list[str],
    typer.Option(
        autocompletion=complete_policy,
        metavar="SPEC",
        help="A policy, see below; repeat it for more.",
    ),
]
Log = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Instance log to write (JSON lines).")
]
View = Annotated[
    int | None,
    typer.Option(
        min=2,
        max=MOST,
        metavar="TOKENS",
        help="Keep so many source and so many target tokens in view; older ones are dropped.",
        show_default="all",
    ),
]
Sinks = Annotated[
    int,
    typer.Option(
        min=0, max=MOST, help="First units and target tokens that stay in the window for good."
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="Sample at this temperature; 0 is greedy.",
        show_default="the model's generation settings",
    ),
]


def make_counting(tokenize: str, unit: str) -> "Counting":
    """What --bleu-tokenize and --latency-unit ask for.

    Args:
        tokenize: of BLEU.
        unit: of latency.

    Returns:
        What scores are to count.

    Raises:
        ValueError: one of them is unknown, or what it needs is not there.
    """
    from proactivellm.metrics.counting import Counting, resolve

    counting = Counting(tokenize=tokenize, unit=unit)
    resolve([], counting)  # a wrong name is told before anything runs
    return counting


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
