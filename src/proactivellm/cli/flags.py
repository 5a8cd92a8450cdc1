"""The flags that commands share, with their help."""

import math
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from proactivellm.cli.completion import complete_model, complete_policy
from proactivellm.cli.models import default_model

if TYPE_CHECKING:
    from proactivellm.forward.int8 import Kv
    from proactivellm.metrics.counting import Counting
    from proactivellm.session.window import Window

MOST = 1_000_000_000  # of whole numbers, so that sums and products of them fit into 64 bits

LOWEST_RATE = 0.01  # words per minute

Model = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete_model,
        metavar="NAME|PATH",
        help="A name that `proactivellm models` lists, a model folder, a GGUF file, or a hub id of "
        "Hugging Face (owner/name, owner/name@revision).",
        show_default=f"{default_model(None)}; for recordings {default_model('speech')}",
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|ID",
        help="An adapter (PEFT) for the model: a folder or a hub id. What lies beside it "
        "(streaming.json, calibration.json, learned.safetensors) is used in place of the model's.",
        show_default="none; the folder of an adapter can also be given as --model",
    ),
]
MergeAdapter = Annotated[
    bool,
    typer.Option(
        "--merge-adapter",
        help="Add the adapter to the weights once, which makes each step quicker.",
    ),
]
LayoutName = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="grouped|interleaved|reencoded",
        help="How source and target share the context: as the model was trained to, or reencoded "
        "for a model that was never trained to stream.",
        show_default="the model's own",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="Where the model runs: cpu, cuda, cuda:1 or mps.")
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Type of the weights: float32, bfloat16, float16 or auto. auto is float32 on a CPU, "
        "elsewhere the type in the file, or bfloat16 with int8.",
    ),
]
Quantization = Annotated[
    str,
    typer.Option(
        metavar="none|int8|nf4",
        help="Store the weights of linear layers in 8 bits (needs the extra quant), or in 4 (extra "
        "qlora).",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run code that comes with the model, with all your rights. Without this flag a model "
        "that needs its own code is refused.",
    ),
]
Source = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Source texts, one a line; for the task qa also a .json in SQuAD format. For speech: "
        "a manifest (.jsonl, with the texts), a list of recordings, one a line, or a recording.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Reference texts: line i belongs to source i. Without them only latency is scored.",
        show_default="those of a .json or .jsonl source",
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="translation|qa|choice|reasoning|summary|asr",
        help="What is scored: translation by BLEU and chrF, qa by F1 and exact match, choice and "
        "reasoning by accuracy, summary by ROUGE, asr by word and character errors.",
        show_default="asr for recordings, otherwise translation",
    ),
]
BleuTokenize = Annotated[
    str,
    typer.Option(
        "--bleu-tokenize",
        metavar="NAME",
        help="Tokenizer of BLEU, by its name in sacrebleu: 13a, zh, ja-mecab, ko-mecab, flores200, "
        "char, intl, ... auto chooses by the script of the references.",
    ),
]
LatencyUnit = Annotated[
    str,
    typer.Option(
        "--latency-unit",
        metavar="word|char|spm:FILE",
        help="Unit in which lags count the target: words, characters, or pieces of a SentencePiece "
        "model. auto chooses by the script of the references.",
    ),
]
Lanes = Annotated[
    int,
    typer.Option(
        min=1, max=100_000, metavar="N", help="How many sources are streamed in one batch."
    ),
]
NoGate = Annotated[
    bool,
    typer.Option(
        "--no-gate",
        help="Let the model hear silence too. Without this flag a gate lets only speech through.",
        rich_help_panel="Recordings",
    ),
]
OnePolicy = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete_policy,
        metavar="SPEC",
        help="When to READ and when to WRITE: a policy of the table below.",
        show_default="the one that the model's calibration table names; else entropy:laal=3, "
        "without a table wait-k:3, for recordings wait-k:2,stride=2",
    ),
]
View = Annotated[
    int | None,
    typer.Option(
        min=2,
        max=MOST,
        metavar="TOKENS",
        help="Keep this many source tokens and this many target tokens in view; older ones are "
        "dropped, so that a stream may be endless.",
        show_default="all",
    ),
]
Sinks = Annotated[
    int,
    typer.Option(
        min=0,
        max=MOST,
        metavar="N",
        help="Keep the first N units and the first N target tokens in the window for good.",
    ),
]
Speculate = Annotated[
    str | None,
    typer.Option(
        metavar="lookup[:N]|MODEL[:N]",
        help="Propose up to N tokens ahead (4), which one forward checks: those that followed the "
        "last tokens where they stood before (lookup), or those of a smaller model with the same "
        "tokenizer. What is written stays the same.",
        show_default="a token for each forward",
    ),
]

KvName = Annotated[
    str,
    typer.Option(
        "--kv",
        metavar="none|int8",
        help="int8 keeps the keys and values of streams in 8 bits: a quarter of the memory of "
        "float32, half of that of float16. What is written may change by the rounding.",
    ),
]


def check_rate(rate_wpm: float | None, listens: bool = False) -> None:
    """Checks --rate; `listens` if the sources are recordings.

    Raises:
        ValueError: it is no number that a clock can keep, or recordings have their own.
    """
    if rate_wpm is not None and listens:
        raise ValueError(
            f"--rate {rate_wpm:g} is for text: recordings arrive as they were spoken, with "
            "`stream --real-time` on the clock as well"
        )
    if rate_wpm is not None and not LOWEST_RATE <= rate_wpm < math.inf:
        raise ValueError(f"--rate {rate_wpm:g}: give {LOWEST_RATE} words per minute or more")


def make_counting(tokenize: str, unit: str) -> "Counting":
    """What scores count, by --bleu-tokenize and --latency-unit.

    Raises:
        ValueError: one of them is unknown, or what it needs is not there.
    """
    from proactivellm.metrics.counting import Counting, resolve

    counting = Counting(tokenize=tokenize, unit=unit)
    resolve([], counting)  # a wrong name is told before anything runs
    return counting


def parse_kv(name: str) -> "Kv | None":
    """How --kv keeps keys and values; ValueError for a name that it does not take."""
    from proactivellm.forward.int8 import Kv

    for kv in get_args(Kv):
        if name == kv:
            return kv  # type: ignore[no-any-return]
    if name != "none":
        raise ValueError(f"--kv {name}: choose from none, {', '.join(get_args(Kv))}")
    return None


def make_window(tokens: int | None, sinks: int) -> "Window | None":
    """The window that --window and --sinks ask for; None without them.

    Raises:
        ValueError: there is no window for the sinks to be in, or no room in it.
    """
    if sinks and tokens is None:
        raise ValueError(f"--sinks {sinks}: there is no window; give one with --window")
    if tokens is None:
        return None
    from proactivellm.session.window import Window

    return Window(source=tokens, target=tokens, sinks=sinks)
