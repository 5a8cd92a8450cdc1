"""The command `score`: quality, latency and cost of a log, without a model."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proactivellm.cli.app import app
from proactivellm.cli.flags import BleuTokenize, LatencyUnit, make_counting
from proactivellm.cli.messages import warn

if TYPE_CHECKING:
    from proactivellm.output.log import Instance, Task

RESAMPLES = 1000
Bootstrap = Annotated[
    int,
    typer.Option(
        min=0,
        max=1_000_000,
        metavar="N",
        help="Resamples of the instances behind the 95% intervals; 0 leaves the intervals out.",
    ),
]
ScoredTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="translation|qa|choice|reasoning|summary|asr",
        help="What is scored: translation by BLEU and chrF, qa by F1 and exact match, choice and "
        "reasoning by accuracy, summary by ROUGE, asr by word and character errors.",
        show_default="the log's",
    ),
]
Offline = Annotated[
    Path | None,
    typer.Option(
        metavar="LOG",
        help="Add the misleading time: how long a word is shown that this log, of the same model's "
        "offline policy, does not have.",
        show_default="none",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON instead of a table.")]


@app.command()
def score(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG",
            help="Instance log (JSON lines) of proactivellm, SimulEval or simulstream.",
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="References, one a line; the first line is for index 0.",
            show_default="the log's",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Sources, one a line; the first line is for index 0.",
            show_default="the log's",
        ),
    ] = None,
    task: ScoredTask = None,
    segments: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Score long recordings by these segments: JSON lines with audio, start_s, end_s "
            "(seconds) and text.",
            show_default="recordings as a whole",
        ),
    ] = None,
    offline: Offline = None,
    bleu_tokenize: BleuTokenize = "auto",
    latency_unit: LatencyUnit = "auto",
    bootstrap: Bootstrap = RESAMPLES,
    as_json: Json = False,
) -> None:
    """Score an instance log: quality, latency and cost, with 95% intervals.

    Example:
        proactivellm score results/wait-k_3/instances.log
    """
    from proactivellm.metrics.longform import score_longform
    from proactivellm.metrics.score import score as score_all
    from proactivellm.metrics.segments import read_segments
    from proactivellm.output.log import read_log
    from proactivellm.report.console import print_scores

    if segments is not None and reference is not None:
        raise ValueError("--segments has the references: leave out --reference")
    counting = make_counting(bleu_tokenize, latency_unit)
    instances = _complete(read_log(log), source, reference, task)
    if segments is not None and offline is not None:
        raise ValueError("--offline compares whole instances: leave out --segments")
    finals = None if offline is None else read_log(offline)
    score_by = partial(score_all, finals=finals)
    if segments is not None:
        score_by = partial(score_longform, segments=read_segments(segments))
    with naming(log):
        scores = score_by(instances, num_bootstrap=bootstrap, counting=counting)
    if bootstrap and "num_bootstrap" not in scores:
        warn("warning: no intervals: a single instance cannot be resampled")
    if as_json:
        print_json(scores)
    else:
        print_scores([scores])


def _complete(
    instances: "list[Instance]", source: Path | None, reference: Path | None, task: str | None
) -> "list[Instance]":
    """The instances with what was given beside the log."""
    if source is not None:
        texts = _read_texts(source, instances)
        instances = [replace(i, source=texts[i.index]) for i in instances]
    if reference is not None:
        texts = _read_texts(reference, instances)
        instances = [replace(i, reference=texts[i.index], answers=None) for i in instances]
    if task is not None:
        instances = [replace(i, task=_parse_task(task)) for i in instances]
    return instances


def _parse_task(name: str) -> "Task":
    from proactivellm.metrics.measures import QUALITIES_OF

    for task in QUALITIES_OF:
        if name == task:
            return task
    raise ValueError(f"--task {name!r}: give one of {', '.join(QUALITIES_OF)}")


def _read_texts(file: Path, instances: "Sequence[Instance]") -> list[str]:
    """Lines of a file, of which line i, counted from 0, belongs to index i."""
    from proactivellm.files.lines import read_lines

    lines = list(read_lines(file))
    last = max((instance.index for instance in instances), default=0)
    if last >= len(lines):
        raise ValueError(
            f"{file} has {len(lines)} lines, but the log has index {last}: line i, counted from 0, "
            "belongs to index i"
        )
    return lines


@contextmanager
def naming(files: object) -> Iterator[None]:
    """Puts the files before what is wrong with them."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{files}: {error}") from None


def print_json(value: Any) -> None:
    """Prints a value, indented."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
