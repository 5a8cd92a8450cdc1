"""The command `data`: problems to think through, made or judged, and videos to ask about."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proactivellm.cli.app import app
from proactivellm.cli.messages import warn
from proactivellm.cli.places import check_places
from proactivellm.cli.stopping import end_interrupted

if TYPE_CHECKING:
    from proactivellm.tasks.reasoning.gates import Gates
    from proactivellm.tasks.reasoning.problem import Problem
    from proactivellm.tasks.reasoning.teacher import Teacher

GENERATED = ("running", "logic")
# Generated too, and no problems but videos; the second with thoughts.
SHAPES, COUNTING = "shapes", "counting"

What = Annotated[
    str,
    typer.Argument(
        metavar="KIND",
        help="running (counts, among fillers) and logic are generated, as is shapes (videos with "
        "questions about them, which lie in a folder beside FILE), and counting (those with the "
        "number so far as thoughts); gsm8k, prontoqa and "
        "proofwriter are files of these sets; text has rows with question, context and answer, for "
        "a teacher; problems is a file that this command wrote.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        metavar="FILE", help="Where to write the problems (JSON lines); its folder is made."
    ),
]
SourceFile = Annotated[
    str | None, typer.Option("--source", metavar="FILE", help="What is read, maybe .gz.")
]
Count = Annotated[
    int, typer.Option(min=1, max=10_000_000, metavar="N", help="How many are generated.")
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=1_000_000_000, metavar="N", help="Of what is generated, and of --shuffle."
    ),
]
Split = Annotated[
    str,
    typer.Option(metavar="train|valid|test", help="Splits of generated problems share none."),
]
LevelName = Annotated[
    str, typer.Option("--level", metavar="easy|medium|hard", help="Of what is generated.")
]
People = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Of running, whose things are asked for; of logic, whom facts are about.",
        show_default="the level's",
    ),
]
Events = Annotated[
    tuple[int, int] | None,
    typer.Option(
        metavar="MIN MAX",
        help="Of running: sentences that change the count.",
        show_default="the level's",
    ),
]
Fillers = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Of running: share of the sentences that change nothing.",
        show_default="the level's",
    ),
]
Most = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Of running: the largest count; small ones are learnt sooner.",
        show_default="99",
    ),
]
Idle = Annotated[
    float,
    typer.Option(
        metavar="SHARE", help="Of running: share of the fillers with a thought, to be unlearned."
    ),
]
Thoughts = Annotated[
    str,
    typer.Option(
        metavar="all|proof",
        help="Of prontoqa and proofwriter: all that follows from what was read, or the steps of "
        "the proof alone, which only the end of the text shows.",
    ),
]
Shuffle = Annotated[
    bool,
    typer.Option("--shuffle", help="Of prontoqa, proofwriter: put the sentences in random order."),
]
Depth = Annotated[
    int,
    typer.Option(
        min=1, max=3, metavar="1|2|3", help="Stages: thoughts alone, integration, reflection."
    ),
]
MinConsistency = Annotated[
    float,
    typer.Option(
        min=0, max=1, metavar="X", help="Least mean likeness of the thoughts and their sentences."
    ),
]
Longest = Annotated[
    int | None,
    typer.Option(min=1, metavar="WORDS", help="Longest thought that passes.", show_default="any"),
]
LongestProblem = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="WORDS",
        help="Longest problem that passes, with all thoughts and stages.",
        show_default="any",
    ),
]
TeacherName = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="MODEL",
        help="Have the thoughts written by this model, behind an API like OpenAI's (key: "
        "OPENAI_API_KEY; needs the package openai). The same command continues.",
        show_default="none",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Of the teacher, such as http://127.0.0.1:8000/v1.",
        show_default="OPENAI_BASE_URL, or OpenAI's",
    ),
]
Attempts = Annotated[
    int, typer.Option(min=1, max=100, metavar="N", help="Of the teacher, until a reply passes.")
]
Parallel = Annotated[
    int, typer.Option(min=1, max=1000, metavar="N", help="Requests to the teacher at once.")
]
PerMinute = Annotated[
    float | None,
    typer.Option(min=0.001, metavar="N", help="Most requests a minute.", show_default="any"),
]


@app.command()
def data(
    kind: What,
    out: Out,
    source: SourceFile = None,
    count: Count = 1000,
    seed: Seed = 0,
    split: Split = "train",
    level: LevelName = "easy",
    people: People = None,
    events: Events = None,
    fillers: Fillers = None,
    most: Most = None,
    idle: Idle = 0.0,
    thoughts: Thoughts = "all",
    shuffle: Shuffle = False,
    depth: Depth = 3,
    min_consistency: MinConsistency = 0.1,
    longest: Longest = None,
    longest_problem: LongestProblem = None,
    teacher: TeacherName = None,
    base_url: BaseUrl = None,
    attempts: Attempts = 2,
    parallel: Parallel = 4,
    per_minute: PerMinute = None,
) -> None:
    """Make problems to think through while they are read.

    Each has a question, sentences with the thought that follows them, deeper stages and the answer.
    What fails a gate is left out: a thought must not tell what was not read yet.

    Example:
        proactivellm data running --level medium --count 1000 --out train.jsonl
    """
    from proactivellm.tasks.reasoning.gates import Gates, judge_all
    from proactivellm.tasks.reasoning.problem import write_problems
    from proactivellm.tasks.reasoning.teacher import Teacher

    check_places([("--out", out)], [("--source", source)])
    if kind in (SHAPES, COUNTING):
        _film(kind, out, source, count=count, seed=seed, split=split)
        return
    gates = Gates(longest, min_consistency, longest_problem)
    if kind in GENERATED:
        if source is not None:
            raise ValueError(f"{kind} is generated: leave --source out")
        changes = {"people": people, "events": events, "fillers": fillers, "most": most}
        problems = _generated(kind, level, changes, idle, count=count, seed=seed, split=split)
    else:
        problems = _read(kind, source, thoughts, seed if shuffle else None)
    out.parent.mkdir(parents=True, exist_ok=True)
    if teacher is not None:
        asked = Teacher(teacher, base_url, depth, attempts, parallel, per_minute)
        _teach(problems, out, asked, gates)
        return
    kept, report = judge_all([problem.at_depth(depth) for problem in problems], gates)
    write_problems(out, kept)
    typer.echo("\n".join(report.lines()))
    warn(f"{len(kept)} problems are in {out}")


def _film(kind: str, out: Path, source: str | None, *, count: int, **how: Any) -> None:
    """Videos; `how` is seed and split."""
    from proactivellm.report.progress import show_progress
    from proactivellm.tasks.shapes import KINDS, write_shapes

    if source is not None:
        raise ValueError(f"{kind} is generated: leave --source out")
    kinds = KINDS if kind == SHAPES else (COUNTING,)
    with show_progress() as told:
        for done in write_shapes(out, count, kinds=kinds, **how):
            told("clips", done, count)
    warn(f"{count} clips, and the questions about them, are in {out}")


def _generated(
    kind: str, level: str, changes: dict[str, Any], idle: float, **how: Any
) -> "list[Problem]":
    """Problems of a level with changes; `how` is count, seed and split."""
    from proactivellm.tasks.reasoning import puzzles, running

    levels: dict[str, Any] = running.LEVELS if kind == "running" else puzzles.LEVELS
    if level not in levels:
        raise ValueError(f"--level {level}: give one of {', '.join(levels)}")
    given = {name: value for name, value in changes.items() if value is not None}
    if kind == "running":
        return running.draw_running(levels[level]._replace(**given), idle=idle, **how)
    for name in given.keys() - {"people"}:
        raise ValueError(f"--{name} belongs to running: leave it out")
    return puzzles.draw_logic(levels[level]._replace(**given), **how)


def _read(kind: str, source: str | None, thoughts: str, order: int | None) -> "list[Problem]":
    """The problems of a file; tells what was dropped of another set."""
    from proactivellm.tasks.reasoning.convert import KINDS, convert
    from proactivellm.tasks.reasoning.problem import read_problems

    known = next((name for name in KINDS if name == kind), None)
    if known is None and kind != "problems":
        raise ValueError(
            f"{kind!r}: give one of {', '.join((*GENERATED, SHAPES, COUNTING, *KINDS, 'problems'))}"
        )
    if source is None:
        raise ValueError(f"{kind} is read from a file: give --source")
    if thoughts not in ("all", "proof"):
        raise ValueError(f"--thoughts {thoughts}: give all or proof")
    if known is None:
        return read_problems(source)
    converted = convert(source, known, "all" if thoughts == "all" else "proof", order)
    if not converted.problems:
        (reason, _), *_ = converted.dropped.most_common() or [("it is empty", 0)]
        total = converted.dropped.total()
        raise ValueError(f"{source}: none of {total} could be converted: {reason}")
    typer.echo("\n".join(converted.lines()))
    return converted.problems


def _teach(problems: "list[Problem]", out: Path, teacher: "Teacher", gates: "Gates") -> None:
    from proactivellm.report.progress import show_progress
    from proactivellm.tasks.reasoning.gates import judge_all
    from proactivellm.tasks.reasoning.teacher import teach

    try:
        with show_progress() as told:
            taught = teach(problems, out, teacher, gates, told)
    except KeyboardInterrupt:
        end_interrupted(f"what is done is in {out}; the same command continues")
    typer.echo("\n".join(taught.lines()))
    if taught.kept:
        typer.echo("\n".join(judge_all(taught.kept, gates)[1].lines()))
    warn(f"{len(taught.kept)} problems are in {out}")
