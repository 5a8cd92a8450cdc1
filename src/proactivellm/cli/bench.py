"""The command `bench`: what a model costs, beside what one would use without this library."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from proactivellm.cli.commands import app
from proactivellm.cli.models import load_model
from proactivellm.cli.options import MOST, Device, Dtype, Quantization, TrustRemoteCode
from proactivellm.cli.places import check_places
from proactivellm.cli.shared import warn
from proactivellm.report.progress import Progress, show_progress

if TYPE_CHECKING:
    from proactivellm.bench.scope import Options
    from proactivellm.bench.workload import Bench

Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH|SHAPE",
        help="A bundled model, a Hugging Face folder or a hub id; with random weights: a "
        "config.json, a folder that has no more than that, or a shape: shape:6x256, "
        "shape:qwen3-0.6b, shape:qwen2.5-3b, shape:qwen3-8b.",
        show_default="the bundled German-English one",
    ),
]
Suite = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="alone: one stream against three baselines; sessions: many against one; window: an "
        "endless stream, young and old; capacity: live sessions within a deadline; all. "
        "Repeat it for more.",
        show_default="all",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for bench.json and bench.png.")]
Accelerate = Annotated[
    str,
    typer.Option(
        metavar="none|graph|compile",
        help="Steps of fixed shapes: as CUDA graphs, or compiled as well. For GPUs.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Of torch.", show_default="as many as it takes")
]
Sessions = Annotated[
    str,
    typer.Option(metavar="N,...", help="How many at once; the first is what ratios compare with."),
]
SourceUnits = Annotated[int, typer.Option(max=MOST, help="Units of a stream, of one token each.")]
TargetTokens = Annotated[int, typer.Option(max=MOST, help="Tokens written for it.")]
WaitK = Annotated[int, typer.Option("--k", max=MOST, help="Units read before the first token.")]
Long = Annotated[
    int,
    typer.Option(
        max=MOST, help="Units and tokens where the prefix is encoded again and again; 0: not."
    ),
]
Repeats = Annotated[int, typer.Option(max=MOST, help="Of everything that is compared, by turns.")]
Steps = Annotated[int, typer.Option(max=MOST, help="Per number of sessions and repeat (sessions).")]
WindowSize = Annotated[int, typer.Option("--window", max=MOST, help="Tokens in view (window).")]
Units = Annotated[str, typer.Option(metavar="N,N", help="Units read: young, old (window).")]
Deadline = Annotated[float, typer.Option(help="From a unit to its token (capacity).")]
UnitMs = Annotated[float, typer.Option(help="Between the units of a session (capacity).")]
Seconds = Annotated[float, typer.Option(help="Per number of sessions (capacity).")]
MaxSessions = Annotated[int, typer.Option(max=MOST, help="Tried at most (capacity).")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of sources and random weights.")]


@app.command()
def bench(
    context: typer.Context,
    out: Out,
    model: Model = None,
    suite: Suite = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantization: Quantization = "none",
    trust_remote_code: TrustRemoteCode = False,
    accelerate: Accelerate = "none",
    threads: Threads = None,
    sessions: Sessions = "1,32",
    source: SourceUnits = 60,
    target: TargetTokens = 60,
    k: WaitK = 5,
    long: Long = 400,
    repeats: Repeats = 5,
    steps: Steps = 300,
    window: WindowSize = 256,
    units: Units = "800,8000",
    deadline_ms: Deadline = 300.0,
    unit_ms: UnitMs = 400.0,
    seconds: Seconds = 5.0,
    max_sessions: MaxSessions = 1024,
    seed: Seed = 0,
) -> None:
    """Measure speed, latency, memory and capacity: bench.json, a picture, tables.

    Every number is measured in this process, by turns with what it is compared with.
    """
    from proactivellm.backbone.hub import DEFAULT_MODEL
    from proactivellm.bench.suites import new_report, run_suites
    from proactivellm.files.lock import locked
    from proactivellm.files.replace import write_json

    command = {**context.params, "out": str(out), "model": model or DEFAULT_MODEL}
    options = _options(command)
    with locked(out), _threads(threads), show_progress() as progress:
        job = _prepare(command, options, progress)
        report = new_report(job, command)
        try:
            run_suites(job, report, lambda: write_json(out / "bench.json", report))
        except KeyboardInterrupt:
            warn(f"interrupted: what was measured is in {out / 'bench.json'}")
        finally:
            write_json(out / "bench.json", report)
    _show(report, out / "bench.png")
    if not report["complete"]:
        raise typer.Exit(130)


def _options(command: Mapping[str, Any]) -> "Options":
    """The sizes asked for, checked before a model is loaded, as is where results go."""
    from proactivellm.bench.scope import SUITES, Options, parse_numbers
    from proactivellm.forward.graphs import Mode

    files = [Path(command["out"]) / name for name in ("bench.json", "bench.png")]
    check_places([("--out", file) for file in files], [], command["model"])
    if command["accelerate"] not in ("none", *get_args(Mode)):
        raise ValueError(
            f"accelerate {command['accelerate']!r}: choose of none, {', '.join(get_args(Mode))}"
        )
    wanted = command["suite"] or ["all"]
    units = parse_numbers(command["units"], "units")
    if len(units) != 2:
        raise ValueError(f"units {command['units']!r}: give two numbers, such as 800,8000")
    special: dict[str, Any] = {
        "suites": SUITES if "all" in wanted else tuple(dict.fromkeys(wanted)),
        "sessions": parse_numbers(command["sessions"], "sessions"),
        "units": units,
    }
    plain = {f.name: command[f.name] for f in fields(Options) if f.name not in special}
    return Options(**plain, **special)


def _prepare(command: Mapping[str, Any], options: "Options", progress: Progress) -> "Bench":
    """The model, loaded or made, with what the suites need."""
    from proactivellm.backbone.precision import parse_dtype
    from proactivellm.bench.shapes import find_shape, random_model
    from proactivellm.bench.workload import Bench, Endless

    name, device, dtype = command["model"], command["device"], command["dtype"]
    quantization = command["quantization"]
    trusts = command["trust_remote_code"]
    shape = find_shape(name, trusts)
    if shape is None:
        how = {"device": device, "dtype": dtype, "quantization": quantization}
        model = text_model = load_model(name, **how, trust_remote_code=trusts)
    else:
        text_model, weights = None, parse_dtype(dtype)
        model = random_model(shape, device, weights, quantization, options.seed, trusts)
    endless = Endless(model)
    if command["accelerate"] != "none":
        for each in (model, endless):
            each.accelerate(command["accelerate"])
    return Bench(model=endless, text_model=text_model, options=options, progress=progress)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """So many threads of torch, until the end."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _show(report: Mapping[str, Any], path: Path) -> None:
    """Draws the picture, if that can be had, and prints the tables."""
    from proactivellm.report.bench_picture import draw_bench
    from proactivellm.report.bench_tables import bench_tables
    from proactivellm.report.console import print_tables

    try:
        draw_bench(report, path)
    except (ImportError, ValueError) as error:
        warn(f"warning: no picture was drawn: {error}")
    print_tables(bench_tables(report), "bench.json has all")
