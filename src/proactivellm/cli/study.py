"""The command `study`: train, calibrate and evaluate several arms, and put them in one table."""

from pathlib import Path
from typing import Annotated

import typer

from proactivellm.cli.commands import app
from proactivellm.cli.options import Lanes
from proactivellm.cli.places import check_places
from proactivellm.cli.shared import check_train_extra, warn
from proactivellm.report.progress import show_progress

File = Annotated[Path, typer.Argument(metavar="STUDY", help="What to compare on what (TOML).")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the arms and the report.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--arm", metavar="NAME", help="Run this arm only; repeat it for more."),
]
Report = Annotated[bool, typer.Option(help="Run nothing: tables of what is there.")]


@app.command()
def study(
    file: File, out: Out, arm: Only = None, report_only: Report = False, lanes: Lanes = 64
) -> None:
    """Train, calibrate and evaluate arms on the same data: one report, with intervals.

    What the folder already holds is not done again, so that an interrupted study is continued by
    the same command, and arms may run in several processes, each with --arm: the last one writes
    the report.
    """
    from proactivellm.evaluation.results import CURVE_FILE
    from proactivellm.files.toml import load_toml
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
        warn(f"interrupted: what is done stays in {out}; the same command continues")
        raise typer.Exit(130) from None
    waiting = [name for name in wish.arms if not place.has_results(name)]
    if waiting and not report_only:
        warn(f"no report yet, without results: {', '.join(waiting)}")
        return
    for missing in write_report(wish, place):
        warn(f"warning: {missing}")
    typer.echo(f"report: {out / REPORT_FILE}")
