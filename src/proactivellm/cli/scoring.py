"""The commands `score` and `compare`: numbers from logs alone, without a model."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proactivellm.cli.commands import app
from proactivellm.cli.options import BleuTokenize, LatencyUnit, make_counting
from proactivellm.cli.shared import warn
from proactivellm.report.console import print_scores, print_tables

if TYPE_CHECKING:
    from proactivellm.metrics.comparison import Comparison
    from proactivellm.metrics.counting import Counting
    from proactivellm.metrics.folders import Folder
    from proactivellm.output.log import Instance, Task

_RESAMPLES = 1000
Bootstrap = Annotated[
    int,
    typer.Option(
        min=0, max=1_000_000, metavar="N", help="Resamples for the intervals; 0 leaves them out."
    ),
]
ScoredTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="translation|qa|asr",
        help="What is scored: BLEU and chrF, F1 and EM, or WER and CER.",
        show_default="the log's",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
First = Annotated[
    Path, typer.Argument(metavar="A", help="Folder that `evaluate` wrote, or an instance log.")
]
Second = Annotated[
    Path | None,
    typer.Argument(metavar="[B]", help="Another; with --pair, A itself if it is left out."),
]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--pair",
        metavar="A_POLICY=B_POLICY",
        help="Compare these two; repeat it for more.",
        show_default="policies of the same name",
    ),
]


@app.command()
def score(
    log: Annotated[
        Path,
        typer.Argument(metavar="LOG", help="Instance log: ours, SimulEval's or simulstream's."),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="References: line i for index i.", show_default="the log's"
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sources: line i for index i.", show_default="the log's"),
    ] = None,
    task: ScoredTask = None,
    segments: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Score long recordings by these: JSON lines with audio, start_s, end_s, text.",
            show_default="recordings as a whole",
        ),
    ] = None,
    bleu_tokenize: BleuTokenize = "auto",
    latency_unit: LatencyUnit = "auto",
    bootstrap: Bootstrap = _RESAMPLES,
    as_json: Json = False,
) -> None:
    """Score an instance log: quality, latency, cost, with 95% intervals."""
    from proactivellm.metrics.longform import score_longform
    from proactivellm.metrics.score import score as score_all
    from proactivellm.metrics.segments import read_segments
    from proactivellm.output.log import read_log

    if segments is not None and reference is not None:
        raise ValueError("--segments has the references: leave out --reference")
    counting = make_counting(bleu_tokenize, latency_unit)
    instances = _complete(read_log(log), source, reference, task)
    score_by = partial(score_longform, segments=read_segments(segments)) if segments else score_all
    with _naming(log):
        scores = score_by(instances, num_bootstrap=bootstrap, counting=counting)
    if bootstrap and "num_bootstrap" not in scores:
        warn("warning: no intervals: a single instance cannot be resampled")
    if as_json:
        _print_json(scores)
    else:
        print_scores([scores])


@app.command()
def compare(
    first: First,
    second: Second = None,
    pair: Pairs = None,
    bootstrap: Annotated[
        int,
        typer.Option(min=100, max=1_000_000, metavar="N", help="Resamples of the instances."),
    ] = _RESAMPLES,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Write the table as Markdown.")
    ] = None,
    curve: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw both quality-latency curves.")
    ] = None,
    bleu_tokenize: BleuTokenize = "auto",
    latency_unit: LatencyUnit = "auto",
    as_json: Json = False,
) -> None:
    """Compare policies on the same sources: differences, 95% intervals, p-values.

    Policies of the same name in two evaluation folders are pairs, and so are two logs. What is in
    one folder alone is listed.
    """
    from proactivellm.files.apart import check_apart
    from proactivellm.files.replace import write_text
    from proactivellm.metrics.folders import find_logs, match
    from proactivellm.report.comparison_table import comparison_markdown, comparison_tables

    if second is None and not pair:
        raise ValueError("compare: give a second folder or log, or two policies of one with --pair")
    counting = make_counting(bleu_tokenize, latency_unit)
    folders = [find_logs(first), find_logs(second or first)]
    logs = [(f"the log {log}", log) for folder in folders for log in folder.logs.values()]
    check_apart([("--out", out), ("--curve", curve)], logs)
    matches = match(folders[0], folders[1], pair or ())
    comparisons = [_compare(folders, names, bootstrap, counting) for names in matches.pairs]
    only = {"only_A": list(matches.only_first), "only_B": list(matches.only_second)}
    if as_json:
        _print_json({"pairs": comparisons, **only})
    else:
        print_tables(comparison_tables(comparisons), "--json has all")
    for which, folder in zip("AB", folders, strict=True):
        if names := only[f"only_{which}"]:
            warn(f"only in {which} ({folder.path}): {', '.join(names)}")
    if out is not None:
        write_text(out, comparison_markdown(comparisons))
    if curve is not None:
        shown = folders[:1] if second is None else folders
        _draw_curve(shown, counting, curve)


def _compare(
    folders: Sequence["Folder"], names: tuple[str, str], bootstrap: int, counting: "Counting"
) -> "Comparison":
    from proactivellm.metrics.comparison import compare_logs
    from proactivellm.output.log import read_log

    files = [folder.logs[name] for folder, name in zip(folders, names, strict=True)]
    logs = [read_log(file) for file in files]
    with _naming(f"A = {files[0]}, B = {files[1]}"):
        found = compare_logs(logs[0], logs[1], bootstrap, counting)
    return {**found, "A_request": names[0], "B_request": names[1]}


def _draw_curve(folders: Sequence["Folder"], counting: "Counting", path: Path) -> None:
    """Draws quality against latency; warns where it cannot, as the rest is done."""
    from proactivellm.report.curve import quality_latency_curve

    about = ", ".join(f"{which}: {f.path}" for which, f in zip("AB", folders, strict=False))
    try:
        quality_latency_curve(list(_points(folders, counting)), path, about=about)
    except (ImportError, ValueError) as error:
        warn(f"warning: no curve was drawn: {error}")


def _points(folders: Sequence["Folder"], counting: "Counting") -> Iterator[Mapping[str, Any]]:
    """Scores of every log of both, named so that each folder has its own families of policies."""
    from proactivellm.metrics.score import score_log

    for which, folder in zip("AB", folders, strict=False):
        for request, file in folder.logs.items():
            scores = score_log(file, counting=counting)
            yield {**scores, "request": request, "policy": f"{which}/{scores['policy']}"}


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
def _naming(files: object) -> Iterator[None]:
    """Puts the files before what is wrong with them."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{files}: {error}") from None


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
