"""The command `study`: several arms, trained, calibrated and evaluated, in one report."""

from pathlib import Path
from typing import Annotated

import typer

from proactivellm.cli.app import app
from proactivellm.cli.flags import Lanes
from proactivellm.cli.messages import warn
from proactivellm.cli.places import check_places
from proactivellm.cli.stopping import Stops, end_interrupted
from proactivellm.cli.train import check_train_extra

File = Annotated[
    Path, typer.Argument(metavar="STUDY", help="TOML file: which arms to compare, on which data.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the arms and the report.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--arm",
        metavar="NAME",
        help="Run this arm only. Repeat the flag for more.",
        show_default="all arms",
    ),
]
Seeds = Annotated[
    list[int] | None,
    typer.Option(
        "--seed",
        metavar="N",
        help="Of the seeds of the study, run this one only. Repeat the flag for more.",
        show_default="all seeds",
    ),
]
Report = Annotated[
    bool,
    typer.Option("--report-only", help="Run nothing; write the report of the results that exist."),
]


@app.command()
def study(
    context: typer.Context,
    file: File,
    out: Out,
    arm: Only = None,
    seed: Seeds = None,
    report_only: Report = False,
    lanes: Lanes = 64,
) -> None:
    """Train, calibrate and evaluate several models on the same data, in one report.

    What the folder already holds is not done again: the same command continues a study that was
    interrupted. Arms and seeds may run in several processes, each with its own --arm or --seed; the
    last one to finish writes the report. Begin them when the arms that others start from are done.

    Example:
        proactivellm study recipes/studies/multi30k-de-en.toml --out study
    """
    from proactivellm.evaluation.results import CURVE_FILE
    from proactivellm.files.toml import load_toml
    from proactivellm.report.progress import show_progress
    from proactivellm.study.arms import Study
    from proactivellm.study.execution import execute
    from proactivellm.study.place import Place, run_recipe
    from proactivellm.study.tables import REPORT_FILE, missing_results, write_report

    check_train_extra(needs_peft=False)
    wish = load_toml(file, Study)
    place = Place(recipes=file.parent, out=out)
    names = (REPORT_FILE, CURVE_FILE)
    check_places([("--out", out / name) for name in names], [("STUDY", file)])
    chosen = arm or list(wish.arms)
    for name in chosen:
        if name not in wish.arms:
            raise ValueError(f"the study has no arm {name!r}: {', '.join(wish.arms)}")
    if wrong := set(seed or ()) - set(wish.seeds):
        seeds = ", ".join(map(str, wish.seeds)) or "none"
        raise ValueError(f"--seed {min(wrong)} is no seed of the study: {seeds}")
    runs = [
        run for name in chosen for run in wish.runs(name) if not seed or run.seed in (None, *seed)
    ]
    for run in runs:  # mistakes are told before anything runs
        run_recipe(wish, wish.trained(run), place)
    try:
        for run in [] if report_only else runs:
            with show_progress() as progress:
                execute(wish, run, place, lanes, progress, context.obj or Stops())
    except KeyboardInterrupt:
        end_interrupted(f"what is done stays in {out}; the same command continues")
    waiting = missing_results(wish, place)
    if waiting and not report_only:
        warn(f"no report yet, without results: {', '.join(waiting)}")
        return
    for missing in write_report(wish, place):
        warn(f"warning: {missing}")
    typer.echo(f"report: {out / REPORT_FILE}")
