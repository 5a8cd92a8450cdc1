"""The command `study`: several arms, trained, calibrated and evaluated, in one report."""

from pathlib import Path
from typing import Annotated

import typer

from proactivellm.cli.app import app
from proactivellm.cli.flags import Lanes
from proactivellm.cli.messages import warn
from proactivellm.cli.places import check_places
from proactivellm.cli.stopping import end_interrupted
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
Report = Annotated[
    bool,
    typer.Option("--report-only", help="Run nothing; write the report of the results that exist."),
]


@app.command()
def study(
    file: File, out: Out, arm: Only = None, report_only: Report = False, lanes: Lanes = 64
) -> None:
    """Train, calibrate and evaluate several models on the same data, in one report.

    What the folder already holds is not done again: the same command continues a study that was
    interrupted. Arms may run in several processes, each with its own --arm; the last one to finish
    writes the report.

    Example:
        proactivellm study recipes/studies/multi30k-de-en.toml --out study
    """
    from proactivellm.evaluation.results import CURVE_FILE
    from proactivellm.files.toml import load_toml
    from proactivellm.report.progress import show_progress
    from proactivellm.study.arms import Study, arm_recipe
    from proactivellm.study.execution import Place, run_arm
    from proactivellm.study.tables import REPORT_FILE, write_report

    check_train_extra(needs_peft=False)
    wish = load_toml(file, Study)
    place = Place(recipes=file.parent, out=out)
    names = (REPORT_FILE, CURVE_FILE)
    check_places([("--out", out / name) for name in names], [("STUDY", file)])
    chosen = arm or list(wish.arms)
    for name in chosen:
        if name not in wish.arms:
            raise ValueError(f"the study has no arm {name!r}: {', '.join(wish.arms)}")
        arm_recipe(wish, wish.owner(name), place.recipes)  # mistakes are told before anything runs
    try:
        for name in [] if report_only else chosen:
            with show_progress() as progress:
                run_arm(wish, name, place, num_lanes=lanes, progress=progress)
    except KeyboardInterrupt:
        end_interrupted(f"what is done stays in {out}; the same command continues")
    waiting = [name for name in wish.arms if not place.has_results(name)]
    if waiting and not report_only:
        warn(f"no report yet, without results: {', '.join(waiting)}")
        return
    for missing in write_report(wish, place):
        warn(f"warning: {missing}")
    typer.echo(f"report: {out / REPORT_FILE}")
