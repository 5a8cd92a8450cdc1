"""The command `compare`: two evaluations of the same sources, without a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proactivellm.cli.app import app
from proactivellm.cli.flags import BleuTokenize, LatencyUnit, make_counting
from proactivellm.cli.messages import warn
from proactivellm.cli.score import RESAMPLES, Json, naming, print_json

if TYPE_CHECKING:
    from proactivellm.metrics.comparison import Comparison
    from proactivellm.metrics.counting import Counting
    from proactivellm.metrics.folders import Folder

First = Annotated[
    Path, typer.Argument(metavar="A", help="Folder that `evaluate` wrote, or an instance log.")
]
Second = Annotated[
    Path | None,
    typer.Argument(
        metavar="[B]", help="Another one. With --pair it may be left out: then it is A itself."
    ),
]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--pair",
        metavar="A_POLICY=B_POLICY",
        help="Compare this policy of A with that one of B. Repeat the flag for more pairs.",
        show_default="policies of the same name",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="FAMILY",
        help="Compare all policies of A with those of this name, such as wait-k, at equal LAAL, "
        "RCO and DAL.",
        show_default="policies in pairs",
    ),
]
Ceiling = Annotated[
    str | None,
    typer.Option(
        metavar="FAMILY",
        help="With --against: show the share of the way to policies of this name, such as oracle.",
        show_default="none",
    ),
]
Bootstrap = Annotated[
    int,
    typer.Option(
        min=100,
        max=1_000_000,
        metavar="N",
        help="Resamples of the instances behind intervals and p-values.",
    ),
]
Table = Annotated[
    Path | None, typer.Option("--out", metavar="FILE.md", help="Write the table as Markdown.")
]
Curve = Annotated[
    Path | None,
    typer.Option(metavar="FILE.png", help="Draw the quality-latency curves of both."),
]


@app.command()
def compare(
    first: First,
    second: Second = None,
    pair: Pairs = None,
    against: Against = None,
    ceiling: Ceiling = None,
    bootstrap: Bootstrap = RESAMPLES,
    out: Table = None,
    curve: Curve = None,
    bleu_tokenize: BleuTokenize = "auto",
    latency_unit: LatencyUnit = "auto",
    as_json: Json = False,
) -> None:
    """Compare two evaluations of the same sources: differences, 95% intervals, p-values.

    Policies that have the same name in both folders are compared, or two logs with each other.
    Policies that only one folder has are listed.

    Example:
        proactivellm compare results-a results-b
    """
    from proactivellm.files.apart import check_apart
    from proactivellm.files.replace import write_text
    from proactivellm.metrics.folders import find_logs, match
    from proactivellm.report.comparison_table import comparison_markdown, comparison_tables
    from proactivellm.report.console import print_tables

    counting = make_counting(bleu_tokenize, latency_unit)
    if against is not None:
        if second is not None or pair or curve is not None:
            raise ValueError("--against is for one folder: leave out B, --pair and --curve")
        _compare_family(find_logs(first), (against, ceiling), bootstrap, counting, (out, as_json))
        return
    if ceiling is not None:
        raise ValueError("--ceiling needs --against: the way to it begins there")
    if second is None and not pair:
        raise ValueError(
            "give a second folder or log, or compare policies of one with --pair or --against"
        )
    folders = [find_logs(first), find_logs(second or first)]
    logs = [(f"the log {log}", log) for folder in folders for log in folder.logs.values()]
    check_apart([("--out", out), ("--curve", curve)], logs)
    matches = match(folders[0], folders[1], pair or ())
    comparisons = [_compare(folders, names, bootstrap, counting) for names in matches.pairs]
    only = {"only_A": list(matches.only_first), "only_B": list(matches.only_second)}
    if as_json:
        print_json({"pairs": comparisons, **only})
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


def _compare_family(
    folder: "Folder",
    families: tuple[str, str | None],
    bootstrap: int,
    counting: "Counting",
    wanted: tuple[Path | None, bool],
) -> None:
    """Compares the policies of a folder with a family, and a ceiling; `wanted`: --out, --json."""
    from proactivellm.files.apart import check_apart
    from proactivellm.files.replace import write_text
    from proactivellm.metrics.score import score
    from proactivellm.metrics.standing import standings
    from proactivellm.output.log import read_log
    from proactivellm.report.console import print_tables
    from proactivellm.report.standing_table import standings_markdown, standings_table

    out, as_json = wanted
    check_apart([("--out", out)], [(f"the log {log}", log) for log in folder.logs.values()])
    with naming(folder.path):
        logs = {name: read_log(log) for name, log in folder.logs.items()}
        found = standings(logs, *families, num_resamples=bootstrap, counting=counting)
        scores = {name: score(log, counting=counting) for name, log in logs.items()}
    if as_json:
        print_json(asdict(found))
    else:
        print_tables([standings_table(found, scores)], "--out and --json have all")
    if out is not None:
        write_text(out, standings_markdown(found, scores))


def _compare(
    folders: Sequence["Folder"], names: tuple[str, str], bootstrap: int, counting: "Counting"
) -> "Comparison":
    from proactivellm.metrics.comparison import compare_logs
    from proactivellm.output.log import read_log

    files = [folder.logs[name] for folder, name in zip(folders, names, strict=True)]
    logs = [read_log(file) for file in files]
    with naming(f"A = {files[0]}, B = {files[1]}"):
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
